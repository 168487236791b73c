import CrosspointCore

/// Learns the threshold of ``RoutingTrim/pruning(threshold:protecting:)`` from what a router decides: a quantile of w₁/w₀.
///
/// Batches are added locally; ranks meet once, when the threshold is asked for, and get the same one.
///
/// ```swift
/// var calibration = PruningCalibration()
/// for batch in batches { try calibration.add(router.route(logits: batch)) }
/// let router = try router.trimmed(by: .pruning(threshold: calibration.threshold(reduceCounts: sum)))
/// ```
///
/// Source: MC-MoE (arXiv 2410.06270), which takes the median per layer. The ratios are kept as a histogram of 1024 steps, so
/// a threshold is exact to about 0.001.
public struct PruningCalibration: Sendable {
  private var histogram = [Double](repeating: 0, count: 1024)

  public init() {}

  /// Counts the rows of a batch that have a second choice, padding aside. Local.
  /// - Throws: `invalidArgument` for a decision of top-1 or of a router that trims: it no longer shows what was chosen.
  public mutating func add(_ decision: RoutingDecision) throws(CrosspointError) {
    let topK = decision.routing.topK
    guard topK > 1, !decision.isTrimmed else {
      throw TopKRouter.invalid(
        "PruningCalibration", "decision", "it is of top-\(topK)\(topK > 1 ? " and trimmed" : "")")
    }
    for row in 0..<decision.routing.tokens where decision.weight(row) > 0 {
      let (first, second) = (decision.shares[row * topK], decision.shares[row * topK + 1])
      let ratio = first > 0 ? min(1, Double(second / first)) : 1
      histogram[min(histogram.count - 1, Int(ratio * Double(histogram.count)))] += 1
    }
  }

  /// The ratio below which a share `quantile` of all rows lies; pruning with it drops about that share of second choices.
  /// - Parameter reduceCounts: sums over ranks; without it the threshold is this rank's own. Collective if it is.
  /// - Throws: `invalidArgument` for a quantile outside 0…1 or where no rank added a row.
  public func threshold(
    quantile: Double = 0.5, reduceCounts: CountReduction = { _ in }
  ) throws(CrosspointError) -> Double {
    guard quantile >= 0, quantile <= 1 else {
      throw TopKRouter.invalid("PruningCalibration", "quantile", "\(quantile) is not in 0…1")
    }
    var counts = histogram
    try reduceCounts(&counts)
    let total = counts.reduce(0, +)
    guard counts.count == histogram.count, total > 0, total.isFinite else {
      throw TopKRouter.invalid("PruningCalibration", "decisions", "0 rows were added")
    }
    var below = 0.0
    for (step, count) in counts.enumerated() {
      if count > 0, below + count >= quantile * total {
        return (Double(step) + (quantile * total - below) / count) / Double(counts.count)
      }
      below += count
    }
    return 1
  }
}
