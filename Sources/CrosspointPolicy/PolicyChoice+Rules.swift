import CrosspointCompression
import CrosspointExchange

extension PolicyChoice {
  /// Whether two choices do the same, whatever led to them.
  func acts(as other: PolicyChoice) -> Bool { clusterRate == other.clusterRate && wire == other.wire }

  /// What of it is not to be chosen; `nil` where all is well.
  var defect: String? {
    let expected = [predictedError, measuredError ?? 0, predictedBytes, measuredBytes ?? 0]
    guard expected.allSatisfy({ $0 >= 0 && $0.isFinite }) else { return "it expects \(expected)" }
    guard clusterRate.map(PolicyMenu.rates.contains) ?? true else { return "it clusters \(clusterRate!) of the rows" }
    let isOffered =
      wire == .fp32 || PolicyMenu.formats.contains(wire)
      || (wire.code == WireFormat(entropyRate: 1).code && PolicyMenu.entropyRates.contains(wire.rate))
    return isOffered ? nil : "it sends \(wire)"
  }

  static func lossless(_ reason: Reason, bytes: Double) -> PolicyChoice {
    PolicyChoice(
      clusterRate: nil, wire: .fp32, reason: reason, predictedError: 0, measuredError: 0, predictedBytes: bytes)
  }
}
