/// Seconds that link and codec take, the slowest rank's: timed once, when the exchange is made.
struct PolicySpeed: Codable, Equatable, Sendable {
  var linkSecondsPerByte: Double
  /// Of each trial of the menu, to encode and decode a byte of fp32.
  var codecSecondsPerByte: [Double]

  /// What sending `bytes` takes that stand for `coding` bytes of fp32; fp32 itself is not coded.
  func seconds(bytes: Double, coding: Double, code: PolicyMenu.Code) -> Double {
    let perByte =
      switch code {
      case .fp32: 0.0
      case .fixed(let index): codecSecondsPerByte[index]
      case .entropy(let bits):
        PolicyMenu.interpolate(bits) { codecSecondsPerByte[PolicyMenu.formats.count + $0] }
      }
    return bytes * linkSecondsPerByte + perByte * coding
  }

  /// What of it cannot be; `nil` where all is well.
  var defect: String? {
    let isWhole = codecSecondsPerByte.count == PolicyMenu.trials.count
    return isWhole && ([linkSecondsPerByte] + codecSecondsPerByte).allSatisfy { $0 >= 0 && $0.isFinite }
      ? nil : "its speeds are \(linkSecondsPerByte) and \(codecSecondsPerByte)"
  }
}
