import Crosspoint

/// A pruning threshold that is a running quantile of the further experts' relative weights [ours; MC-MoE takes a median
/// measured beforehand]: once per step `μ ← μ + gain (share − d̂)`, d̂ what all ranks dropped. It settles where `share` of
/// the experts after the first are dropped.
struct PruneThreshold {
  /// MC-MoE's medians lie between 0.40 and 0.62.
  static let start = 0.5
  static let gain = 0.1

  let share: Double
  private(set) var value = Self.start
  private var (dropped, seen) = (0, 0)

  init(share: Double) { self.share = share }

  /// Counts what one training batch lost.
  mutating func count(_ decision: RoutingDecision) {
    dropped += decision.trimmed
    seen += decision.routing.tokens * (decision.routing.topK - 1)
  }

  /// Moves the threshold, once per optimiser step. Collective.
  mutating func step(_ fabric: any Fabric) throws(CrosspointError) {
    let counts = try fabric.sum([Double(dropped), Double(seen)], operation: "prune")
    (dropped, seen) = (0, 0)
    if counts[1] > 0 { value = min(1, max(0, value + Self.gain * (share - counts[0] / counts[1]))) }
  }

  /// For a checkpoint.
  var state: [UInt64] { [value.bitPattern] }

  mutating func restore(_ state: [UInt64]) {
    if let bits = state.first { value = Double(bitPattern: bits) }
  }
}
