import CrosspointCore

/// Moves the weight α of a regulariser until a target share of rows is deleted.
///
///     e = δ − δ̂;  p ← 0.9 p + 0.1 k_p e;  i ← i + k_i e;  α ← max(α₀, p + i)
///
/// Source: MrT5 (arXiv 2410.20771), as in the authors' code; there δ̂ is one rank's own, here it is that of all ranks.
package struct RateController: Sendable, Hashable {
  /// δ, in 0…1.
  package let target: Double
  /// k_p.
  package let proportionalGain: Double
  /// k_i.
  package let integralGain: Double
  /// The least α: 0 in the paper, where nothing but the model's loss ever pulls tokens back. Below 0 [ours] the regulariser
  /// itself keeps tokens once too many are deleted.
  package let leastWeight: Double
  /// p, smoothed.
  package private(set) var proportional = 0.0
  /// i.
  package private(set) var integral = 0.0
  /// δ̂ of the last step.
  package private(set) var rate = 0.0
  /// α: what the next step uses.
  package private(set) var weight = 0.0

  package init(target: Double, proportionalGain: Double = 0.5, integralGain: Double = 1e-5, leastWeight: Double = 0) {
    self.target = target
    self.proportionalGain = proportionalGain
    self.integralGain = integralGain
    self.leastWeight = leastWeight
  }

  /// One optimiser step at which a share `rate` of all rows was deleted.
  /// - Parameter warmth: the part of the target that holds yet; see `DeletionOptions.warmth(step:)`. At 0 nothing moves.
  package mutating func observe(rate: Double, warmth: Double = 1) {
    self.rate = rate
    guard warmth > 0 else { return }
    let error = warmth * target - rate
    proportional = 0.9 * proportional + 0.1 * proportionalGain * error
    integral += integralGain * error
    weight = max(leastWeight, proportional + integral)
  }

  /// p, i and α as bit patterns.
  package var state: [UInt64] { [proportional.bitPattern, integral.bitPattern, weight.bitPattern] }

  /// Continues from a ``state``.
  /// - Throws: `checkpointMismatch` if it is not three finite numbers.
  package mutating func restore(_ state: some Collection<UInt64>) throws(CrosspointError) {
    let values = state.map(Double.init(bitPattern:))
    guard values.count == 3, values.allSatisfy(\.isFinite) else {
      throw CrosspointError(
        .checkpointMismatch, operation: "RateController", argument: "state",
        "\(values) where three finite numbers are expected")
    }
    (proportional, integral, weight) = (values[0], values[1], values[2])
  }
}
