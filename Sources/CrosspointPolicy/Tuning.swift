import CrosspointCompression
import CrosspointCore
import CrosspointFiles

#if canImport(FoundationEssentials)
  import FoundationEssentials
#else
  import Foundation
#endif

/// What links and codes of a machine take: timed once, the slowest rank's.
///
/// `xpoint tune` writes one to a file; ``ExchangeOptions/Policy/fastest(relativeError:tuning:)`` and `xpoint plan` go by it.
public struct Tuning: Hashable, Sendable, Codable {
  /// What all ranks need to send to all others of a kind at once.
  public struct Link: Hashable, Sendable, Codable {
    /// The others that a rank sent to.
    public var peers: Int
    /// Seconds of an exchange of a few bytes.
    public var latency: Double
    /// Seconds for each byte that a rank sends, in exchanges of many.
    public var secondsPerByte: Double

    package init(peers: Int, latency: Double, secondsPerByte: Double) {
      (self.peers, self.latency, self.secondsPerByte) = (peers, latency, secondsPerByte)
    }
  }

  /// Between ranks that share memory; `nil` where no two did.
  public var withinNode: Link?
  /// Between ranks that do not; `nil` where all did.
  public var betweenNodes: Link?
  /// Seconds to encode and decode a byte of fp32, by the name of the format.
  public var codecs: [String: Double]

  package init(withinNode: Link?, betweenNodes: Link?, codecs: [String: Double]) {
    (self.withinNode, self.betweenNodes, self.codecs) = (withinNode, betweenNodes, codecs)
  }

  /// Reads what `xpoint tune` wrote.
  /// - Throws: `file` for one that cannot be read, `invalidArgument` for one that is no tuning.
  public init(path: String) throws(CrosspointError) {
    let bytes = try readFile(path, argument: "tuning")
    guard let tuning = try? JSONDecoder().decode(Tuning.self, from: Data(bytes)) else {
      throw Self.refuse("\(path) is not what xpoint tune writes")
    }
    if let defect = tuning.defect { throw Self.refuse("\(path): \(defect)") }
    self = tuning
  }

  /// What tells it from others.
  var fingerprint: String {
    let parts = [withinNode, betweenNodes].map { $0.map { "\($0.peers) \($0.latency) \($0.secondsPerByte)" } ?? "none" }
    var text = (parts + codecs.sorted { $0.key < $1.key }.map { "\($0.key) \($0.value)" }).joined(separator: " ")
    return text.withUTF8 { String(checksum(UnsafeRawBufferPointer($0)), radix: 16) }
  }

  /// What of it cannot be; `nil` where all is well.
  private var defect: String? {
    let links = [withinNode, betweenNodes].compactMap { $0 }.flatMap { [$0.latency, $0.secondsPerByte] }
    if let wrong = (links + codecs.values).first(where: { !($0 >= 0 && $0.isFinite) }) {
      return "it has \(wrong) seconds"
    }
    if let link = [withinNode, betweenNodes].compactMap({ $0 }).first(where: { $0.peers < 1 }) {
      return "it has a link to \(link.peers) ranks"
    }
    return Self.formats.first { codecs["\($0)"] == nil }.map { "it has no speed of \($0)" }
  }

  static func refuse(_ message: String) -> CrosspointError {
    CrosspointError(.invalidArgument, operation: "ExchangeOptions", argument: "tuning", message)
  }
}
