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

/// The textual form of copies.
extension ExchangeOptions.Copies: CustomStringConvertible {
  /// `expert`, `rank`, `node`, or `node:RANKS`.
  /// - Throws: `invalidArgument` for a text that names none.
  package init(named text: String) throws(CrosspointError) {
    switch text {
    case "expert": self = .perExpert
    case "rank": self = .perRank
    case "node": self = .perNode()
    default:
      guard text.hasPrefix("node:"), let ranks = Int(text.dropFirst(5)), ranks > 0 else {
        throw CrosspointError(
          .invalidArgument, operation: "ExchangeOptions", argument: "copies",
          "\(text.debugDescription) is none of expert, rank, node, node:RANKS")
      }
      self = .perNode(ranks: ranks)
    }
  }

  public var description: String {
    switch self {
    case .perExpert: "expert"
    case .perRank: "rank"
    case .perNode(nil): "node"
    case .perNode(let ranks?): "node:\(ranks)"
    }
  }
}
