/// Moves the weight α of a regulariser until a target share of rows is deleted.
///
///     e = δ − δ̂;  p ← 0.9 p + 0.1 k_p e;  i ← i + k_i e;  α ← max(0, p + i)
///
/// Source: MrT5 (arXiv 2410.20771), as in the authors' code; there δ̂ is one rank's own, here it is that of all ranks.
public struct RateController: Sendable, Hashable {
  /// δ, in 0…1.
  public let target: Double
  /// k_p.
  public let proportionalGain: Double
  /// k_i.
  public let integralGain: Double
  /// p, smoothed.
  public private(set) var proportional = 0.0
  /// i.
  public private(set) var integral = 0.0
  /// α, never negative: what the next step uses.
  public private(set) var weight = 0.0

  init(target: Double, proportionalGain: Double, integralGain: Double) {
    self.target = target
    self.proportionalGain = proportionalGain
    self.integralGain = integralGain
  }

  /// One optimiser step at which a share `rate` of all rows was deleted.
  mutating func observe(rate: Double) {
    let error = target - rate
    proportional = 0.9 * proportional + 0.1 * proportionalGain * error
    integral += integralGain * error
    weight = max(0, proportional + integral)
  }

  var state: [UInt64] { [proportional.bitPattern, integral.bitPattern, weight.bitPattern] }

  mutating func restore(_ state: ArraySlice<UInt64>) {
    let values = state.map(Double.init(bitPattern:))
    (proportional, integral, weight) = (values[0], values[1], values[2])
  }
}
