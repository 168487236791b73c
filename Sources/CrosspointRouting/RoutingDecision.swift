/// What a router decided for one batch, and what its backward pass needs to know.
///
/// One that is given to the router again batch after batch keeps its memory, so that routing allocates nothing.
public struct RoutingDecision: Sendable {
  /// Where each token goes and with what weight: the input of a dispatch.
  public internal(set) var routing = Routing.none
  /// The auxiliary losses of this batch, coefficients included. They are not part of any activation: add them to the
  /// reported loss; their gradients come from the router's `backward`.
  public internal(set) var losses = RoutingLosses()
  /// Pairs (token, choice) that found their expert full; their index is −1 and their weight 0.
  public internal(set) var overflow = 0
  /// Pairs that the router's trim took away; their index is −1 and their weight 0.
  public internal(set) var trimmed = 0

  /// Whether the router trims.
  var isTrimmed = false
  /// `[T × K]`: the choice before capacity; −1 where pruning took it away, which renormalises.
  var chosen: [Int32] = []
  /// `[T × K]`: weights of the choice before the scale and before capacity.
  var shares: [Float] = []
  var scores = Scores()
  /// `[E + 2]`: kept pairs per expert and rows, weighted, as the load-balance loss counts them (this rank's or all ranks'),
  /// and failed ranks.
  var load: [Double] = []
  /// `[E]`: what one unit of a token's probability costs at each expert, `c E f_i / T`. The counts behind f do not move
  /// with the logits.
  var pull: [Float] = []
  /// `[T]`: tokens that each row stands for; empty: one each.
  var tokensPerRow: [Int32] = []
  var scratch = ChoiceScratch()

  /// Of no tokens: a place for what a router will decide.
  public init() {}

  /// What a row counts in the auxiliary losses.
  func weight(_ row: Int) -> Double { tokensPerRow.isEmpty ? 1 : Double(tokensPerRow[row]) }

  /// The sum of all rows' weights.
  var totalWeight: Double {
    tokensPerRow.isEmpty ? Double(routing.tokens) : tokensPerRow.reduce(0) { $0 + Double($1) }
  }

  /// `[T × E]` row-major: the score of every expert, softmax(z) or σ(z), free of any bias.
  package var probabilities: [Float] { scores.values }
}

/// What choosing experts needs besides its result.
struct ChoiceScratch: Sendable {
  /// `[T × E]`: by what experts are chosen, where that is not the logits.
  var keys: [Float] = []
  /// Of one token: the best keys, or the scores of its groups.
  var best: [Float] = []
  var groups: GroupChoice?
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
