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
  /// `expert`, `rank`, `node`, `node:RANKS`, `automatic`, or `automatic:K`.
  /// - Throws: `invalidArgument` for a text that names none.
  package init(named text: String) throws(CrosspointError) {
    switch text {
    case "expert": self = .perExpert
    case "rank": self = .perRank
    case "node": self = .perNode()
    case "automatic": self = .automatic()
    default:
      let parts = text.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false)
      switch (parts[0], parts.last.flatMap { Int($0) }) {
      case ("node", let ranks?) where ranks > 0: self = .perNode(ranks: ranks)
      case ("automatic", let topK?) where topK > 0: self = .automatic(topK: topK)
      default:
        throw CrosspointError(
          .invalidArgument, operation: "ExchangeOptions", argument: "copies",
          "\(text.debugDescription) is none of expert, rank, node, node:RANKS, automatic, automatic:K")
      }
    }
  }

  public var description: String {
    switch self {
    case .perExpert: "expert"
    case .perRank: "rank"
    case .perNode(nil): "node"
    case .perNode(let ranks?): "node:\(ranks)"
    case .automatic(nil): "automatic"
    case .automatic(let topK?): "automatic:\(topK)"
    }
  }
}
