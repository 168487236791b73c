import CrosspointCore

/// Balances experts without a loss: a bias per expert that moves the choice and nothing else.
///
/// Once per optimiser step every expert that took less than the mean is favoured by γ and every one that took more is
/// held back by γ: `b_i += γ sign(mean n − n_i)` (Wang et al., arXiv 2408.15664, algorithm 1; DeepSeek-V3, arXiv
/// 2412.19437, section 2.1.2). It has no gradient. Keep `values` in checkpoints.
public struct SelectionBias: Sendable, Hashable {
  /// `[E]`: added to the scores when experts are chosen.
  public private(set) var values: [Float]
  /// γ, in units of the scores; 0.001 is the papers' for sigmoid scores.
  package let rate: Float

  /// A bias of zeros.
  /// - Throws: `invalidArgument` for `experts` outside 1…2²⁰ or a rate that is negative or not finite.
  public init(experts: Int, rate: Float = 0.001) throws(CrosspointError) {
    try Extent.require(experts, in: Extent.experts, operation: "SelectionBias", argument: "experts")
    try self.init(values: [Float](repeating: 0, count: experts), rate: rate)
  }

  /// A bias that continues from given values.
  /// - Throws: `invalidArgument` for no values, one that is not finite, or a rate that is negative or not finite.
  public init(values: [Float], rate: Float = 0.001) throws(CrosspointError) {
    guard !values.isEmpty, values.allSatisfy(\.isFinite) else {
      throw TopKRouter.invalid("SelectionBias", "values", "one finite value per expert is needed")
    }
    guard rate >= 0, rate.isFinite else {
      throw TopKRouter.invalid("SelectionBias", "rate", "\(rate); it must be finite and not negative")
    }
    self.values = values
    self.rate = rate
  }

  /// One step. Call it once per optimiser step, in training only.
  ///
  /// - Parameters:
  ///   - tokensPerExpert: `[E]`, pairs kept since the last step, summed over this rank's batches
  ///     (``Routing/tokensPerExpert``).
  ///   - reduceCounts: sums `[E]` counts over ranks; without it the ranks' biases drift apart. Collective if it is.
  /// - Throws: `invalidArgument` if there is not one count per expert.
  public mutating func update(
    tokensPerExpert: [Int], reduceCounts: CountReduction = { _ in }
  ) throws(CrosspointError) {
    var counts = tokensPerExpert.map(Double.init)
    try reduceCounts(&counts)
    guard counts.count == values.count else {
      throw TopKRouter.invalid("update", "tokensPerExpert", "\(counts.count) counts for \(values.count) experts")
    }
    let mean = counts.reduce(0, +) / Double(counts.count)
    for expert in counts.indices where counts[expert] != mean {
      values[expert] += counts[expert] < mean ? rate : -rate
    }
  }
}
