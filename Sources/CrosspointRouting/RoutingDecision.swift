/// What a router decided for one batch, and what its backward pass needs to know.
public struct RoutingDecision: Sendable {
  /// Where each token goes and with what weight: the input of a dispatch.
  public let routing: Routing
  /// The auxiliary losses of this batch, coefficients included. They are not part of any activation: add them to the
  /// reported loss; their gradients come from the router's `backward`.
  public internal(set) var losses = RoutingLosses()
  /// Pairs (token, choice) that found their expert full; their index is −1 and their weight 0.
  public let overflow: Int
  /// Pairs that the router's trim took away; their index is −1 and their weight 0.
  public let trimmed: Int

  /// Whether the router trims.
  let isTrimmed: Bool
  /// `[T × K]`: the choice before capacity; −1 where pruning took it away, which renormalises.
  let chosen: [Int32]
  /// `[T × K]`: weights of the choice before the scale and before capacity.
  let shares: [Float]
  /// What each expert scored.
  let scores: Scores
  /// `[E + 1]`: kept pairs per expert and rows, weighted, as the load-balance loss counts them (this rank's or all ranks').
  var load: [Double] = []
  /// `[T]`: tokens that each row stands for; empty: one each.
  let tokensPerRow: [Int32]

  /// What a row counts in the auxiliary losses.
  func weight(_ row: Int) -> Double { tokensPerRow.isEmpty ? 1 : Double(tokensPerRow[row]) }

  /// The sum of all rows' weights.
  var totalWeight: Double {
    tokensPerRow.isEmpty ? Double(routing.tokens) : tokensPerRow.reduce(0) { $0 + Double($1) }
  }

  /// `[T × E]` row-major: the score of every expert, softmax(z) or σ(z), free of any bias.
  public var probabilities: [Float] { scores.values }
}

/// Auxiliary losses of one batch, coefficients included, each the mean over this rank's tokens (0 without tokens); a row
/// that stands for several counts as many times.
public struct RoutingLosses: Sendable, Hashable {
  /// `c E Σ_i f_i P_i`: f the fraction of all T·K pairs kept by expert i, P the mean share of its score in the token's
  /// scores. It is c where the load is even and nothing overflows (Fedus et al., arXiv 2101.03961, equations 4 to 6).
  public var loadBalance = 0.0
  /// `c_z mean_t (log Σ_i exp z_ti)²`: keeps logits small (Zoph et al., arXiv 2202.08906, equation 5).
  public var z = 0.0
  /// Their sum.
  public var total: Double { loadBalance + z }
}
