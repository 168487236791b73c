import CrosspointCompression
import CrosspointCore
import CrosspointFabric

/// Seconds that links and codes take on the ranks of an exchange, the slowest rank's.
struct PolicySpeed: Codable, Equatable, Sendable {
  /// For each byte that a rank sends to all others alike.
  var linkSecondsPerByte: Double
  /// To encode and decode a byte of fp32 as it is.
  var plainSecondsPerByte: Double
  /// The same of each trial of the menu.
  var codecSecondsPerByte: [Double]

  /// What sending `bytes` takes that stand for `coding` bytes of fp32.
  func seconds(bytes: Double, coding: Double, code: PolicyMenu.Code) -> Double {
    let perByte =
      switch code {
      case .fp32: plainSecondsPerByte
      case .fixed(let index): codecSecondsPerByte[index]
      case .entropy(let bits):
        PolicyMenu.interpolate(bits) { codecSecondsPerByte[PolicyMenu.formats.count + $0] }
      }
    return bytes * linkSecondsPerByte + perByte * coding
  }

  /// Whether a trial of the menu takes less time than sending fp32 does; of entropy codes, whether any does.
  func canGain(_ trial: Int) -> Bool {
    let formats = PolicyMenu.formats.count
    let seconds = trial < formats ? codecSecondsPerByte[trial] : codecSecondsPerByte[formats...].min()!
    return seconds < linkSecondsPerByte + plainSecondsPerByte
  }

  /// What of it cannot be; `nil` where all is well.
  var defect: String? {
    let isWhole = codecSecondsPerByte.count == PolicyMenu.trials.count
    return isWhole
      && ([linkSecondsPerByte, plainSecondsPerByte] + codecSecondsPerByte).allSatisfy { $0 >= 0 && $0.isFinite }
      ? nil : "its speeds are \(linkSecondsPerByte), \(plainSecondsPerByte) and \(codecSecondsPerByte)"
  }
}

extension PolicySpeed {
  /// - Throws: `invalidArgument` for links that the tuning has not measured.
  init(_ tuning: Tuning, on fabric: any Fabric) throws(CrosspointError) {
    let others = fabric.rankCount - 1
    let within = (0..<fabric.rankCount).count { fabric.sharesMemory(with: $0) } - 1
    func part(_ peers: Int, _ link: Tuning.Link?, _ name: String) throws(CrosspointError) -> Double {
      guard peers > 0 else { return 0 }
      guard let link else { throw Tuning.refuse("it was made where no two ranks were \(name): tune where you train") }
      return link.secondsPerByte * Double(peers) / Double(others)
    }
    linkSecondsPerByte =
      try part(within, tuning.withinNode, "on one node")
      + part(others - within, tuning.betweenNodes, "on different nodes")
    plainSecondsPerByte = tuning.codecs["\(WireFormat.fp32)"] ?? 0
    codecSecondsPerByte = PolicyMenu.trials.map { tuning.codecs["\($0)"] ?? 0 }
  }
}
