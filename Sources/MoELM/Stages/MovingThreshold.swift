import Crosspoint

/// A threshold in 0…1 that moves until what it lets happen has the mean that is wanted: once per optimiser step
/// `μ ← μ + gain (target − observed)`, counted over all ranks [ours].
struct MovingThreshold {
  let target: Double
  let gain: Double
  private(set) var value: Double
  private var (counted, seen) = (0, 0)

  /// For pruning: settles where `share` of the experts after the first are dropped. MC-MoE's medians, measured
  /// beforehand, lie between 0.40 and 0.62.
  static func pruning(share: Double) -> MovingThreshold { MovingThreshold(target: share, gain: 0.1, value: 0.5) }

  /// For the price of a group: settles where a token uses `groups` of them on average.
  static func groupPrice(groups: Double) -> MovingThreshold { MovingThreshold(target: groups, gain: -0.1, value: 0.25) }

  private init(target: Double, gain: Double, value: Double) {
    (self.target, self.gain, self.value) = (target, gain, value)
  }

  /// What one training batch adds to the mean.
  mutating func count(_ some: Int, of all: Int) {
    counted += some
    seen += all
  }

  /// Moves, once per optimiser step. Collective.
  mutating func step(_ fabric: any Fabric, operation: StaticString) throws(CrosspointError) {
    let (some, all) = try fabric.sum(Double(counted), Double(seen), operation: operation)
    (counted, seen) = (0, 0)
    if all > 0 { value = min(1, max(0, value + gain * (target - some / all))) }
  }

  /// For a checkpoint.
  var state: UInt64 { value.bitPattern }

  /// - Throws: `checkpointMismatch` for what is not in 0…1.
  mutating func restore(_ state: UInt64) throws(CrosspointError) {
    let threshold = Double(bitPattern: state)
    guard threshold >= 0, threshold <= 1 else {
      throw CrosspointError(
        .checkpointMismatch, operation: "resume", argument: "stages", "a threshold of \(threshold) is not in 0…1")
    }
    value = threshold
  }
}
