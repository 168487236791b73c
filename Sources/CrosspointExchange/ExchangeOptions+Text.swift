import CrosspointCompression
import CrosspointCore

/// The textual form of a compression: what tools take and summaries print.
extension ExchangeOptions.Compression: LosslessStringConvertible {
  /// `off`, `lsh-moe`, or `lsh` with settings as ``ClusterOptions`` reads them.
  public init?(_ text: String) {
    guard let compression = try? Self(named: text) else { return nil }
    self = compression
  }

  /// - Throws: `invalidArgument` for a text that names none, with what may have been meant.
  public init(named text: String) throws(CrosspointError) {
    self = text == "off" ? .off : .crossPolytope(try ClusterOptions(named: text))
  }

  public var description: String {
    switch self {
    case .off: "off"
    case .crossPolytope(let options): "\(options)"
    }
  }
}
