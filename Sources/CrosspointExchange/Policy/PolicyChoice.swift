import CrosspointCompression
import Glibc

/// What a policy chose for one transfer, why, and what it predicted and measured; the same on every rank.
public struct PolicyChoice: Hashable, Sendable, Codable {
  /// Why it is this one.
  package enum Reason: String, Sendable, Codable {
    /// The best that keeps the budget.
    case budget
    /// Nothing keeps the budget; this takes the fewest bytes.
    case unreachable
    /// Lossless: no row leaves its rank.
    case nothingTravels
    /// Lossless: rows that are not finite, or beyond the range of a float, cannot be measured.
    case unmeasured
    /// Lossless: the rows weigh less than the announcements that go with them.
    case fewRows
    /// Lossless: the budget is what fp32 takes.
    case budgetAllows
    /// Lossless: coding would take longer than sending, by what was timed at init.
    case slowCodec
  }

  /// Clusters per routed row at most; `nil`: every row travels.
  public var clusterRate: Float?
  public var wire: WireFormat
  package var reason: Reason
  /// ‖x̂ − x‖ / ‖x‖ over all ranks, as it was predicted from a sample of the rows.
  package var predictedError: Double
  /// The same of all rows that travelled, as their frames decode, in the last transfer that was measured; `nil` before.
  public var measuredError: Double?
  /// Bytes per byte of bf16 over all ranks, as predicted.
  package var predictedBytes: Double
  /// The same in all transfers since; `nil` before the first.
  public var measuredBytes: Double?

  /// Whether every row arrives as it is.
  package var keepsEveryBit: Bool { clusterRate == nil && wire.isLossless }

  package init(
    clusterRate: Float?, wire: WireFormat, reason: Reason, predictedError: Double, measuredError: Double? = nil,
    predictedBytes: Double, measuredBytes: Double? = nil
  ) {
    self.clusterRate = clusterRate
    self.wire = wire
    self.reason = reason
    self.predictedError = predictedError
    self.measuredError = measuredError
    self.predictedBytes = predictedBytes
    self.measuredBytes = measuredBytes
  }
}

extension PolicyChoice: CustomStringConvertible {
  /// For example `rotated:2: best within the budget; error 0.271 predicted, 0.268 measured; bytes 0.130 of bf16 predicted,
  /// 0.130 measured`.
  public var description: String {
    let rows = clusterRate.map { "clusters:\($0) " } ?? ""
    let why =
      switch reason {
      case .budget: "best within the budget"
      case .unreachable: "the fewest bytes there are, above the budget"
      case .nothingTravels: "lossless, no row leaves its rank"
      case .unmeasured: "lossless, the rows cannot be measured"
      case .fewRows: "lossless, the rows weigh less than their announcements"
      case .budgetAllows: "lossless, as the budget allows"
      case .slowCodec: "lossless, the link is faster than the codec"
      }
    return "\(rows)\(wire): \(why); error \(short(predictedError)) predicted, \(measured(measuredError)); "
      + "bytes \(short(predictedBytes)) of bf16 predicted, \(measured(measuredBytes))"
  }
}

private func measured(_ value: Double?) -> String { value.map { "\(short($0)) measured" } ?? "not measured yet" }

/// Four decimals; of what is smaller, two digits.
private func short(_ value: Double) -> String {
  let decimals = value == 0 || value >= 1e-3 ? 1e4 : pow(10, 1 - log10(value).rounded(.down))
  return "\((value * decimals).rounded() / decimals)"
}
