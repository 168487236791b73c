import CrosspointCompression
import CrosspointCore

/// The textual form of a compression: what tools take and summaries print.
extension ExchangeOptions.Compression: CustomStringConvertible {
  /// `off`, `lsh-moe`, or `lsh` with settings as ``ClusterOptions`` reads them.
  /// - Throws: `invalidArgument` for a text that names none, with what may have been meant.
  package init(named text: String) throws(CrosspointError) {
    self = text == "off" ? .off : .crossPolytope(try ClusterOptions(named: text))
  }

  public var description: String {
    switch self {
    case .off: "off"
    case .crossPolytope(let options): options.text
    }
  }
}
