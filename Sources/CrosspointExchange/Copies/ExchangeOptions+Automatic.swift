import CrosspointCore
import CrosspointFabric

/// How often a token travels, chosen from where ranks and experts are.
extension ExchangeOptions {
  /// The options with automatic copies decided. Collective where they are automatic.
  ///
  /// - Parameter topK: experts of a token, where the options do not say.
  /// - Throws: `invalidArgument` if nobody says.
  package func decidingCopies(
    topK: Int? = nil, layout: ExpertLayout, fabric: any Fabric
  ) throws(CrosspointError) -> ExchangeOptions {
    guard case .automatic(let choices) = copies else { return self }
    guard let topK = choices ?? topK, topK > 0 else {
      throw CrosspointError(
        .invalidArgument, operation: "ExchangeOptions", rank: fabric.rank, argument: "copies",
        "how many experts a token has must be known: automatic:K"
      ).agreed
    }
    var options = self
    let nodeSize = try Self.commonNodeSize(fabric)
    switch (rows, activeCompensation) {
    case (.bf16, _), (_, .lowRank): options.copies = .perExpert
    default: options.copies = Copies(topK: topK, layout: layout, ranks: fabric.rankCount, ranksPerNode: nodeSize)
    }
    return options
  }

  /// How many ranks each node has, where nodes are consecutive ranks, as many in each; else 1. Collective.
  private static func commonNodeSize(_ fabric: any Fabric) throws(CrosspointError) -> Int {
    let count = fabric.rankCount
    let reached = (0..<count).filter { fabric.sharesMemory(with: $0) }
    let start = fabric.rank / reached.count * reached.count
    let isNode = count.isMultiple(of: reached.count) && reached == Array(start..<start + reached.count)
    var sums = [Double](repeating: 0, count: count + 1)
    sums[isNode ? reached.count : 0] = 1
    try sums.withUnsafeMutableBufferPointer { values throws(CrosspointError) in
      try fabric.allreduce(values, operation: "ExpertExchange.init")
    }
    return sums.firstIndex(of: Double(count)).flatMap { $0 == 0 ? nil : $0 } ?? 1
  }
}

extension ExchangeOptions.Copies {
  /// The part of the rows that fewer copies must leave, to be worth their marks, sums and memory.
  private static let worthwhile = 0.75

  /// One copy per expert; or per rank, if at most three quarters of its rows to other nodes remain; or per node, if at most
  /// three quarters of those do. Rows are counted for tokens that choose their experts at random. Within a node nothing is
  /// saved: there a row is copied once either way.
  ///
  /// - Parameters:
  ///   - topK: experts of a token.
  ///   - ranksPerNode: consecutive ranks that share memory.
  init(topK: Int, layout: ExpertLayout, ranks: Int, ranksPerNode: Int) {
    /// Groups of so many ranks that a token reaches.
    func reached(_ ranksPerGroup: Int) -> Double {
      stride(from: 0, to: ranks, by: ranksPerGroup).reduce(0) { sum, first in
        let end = layout.experts(of: first + ranksPerGroup - 1, rankCount: ranks).upperBound
        let others = layout.experts - (end - layout.experts(of: first, rankCount: ranks).lowerBound)
        let missed = (0..<min(topK, layout.experts)).reduce(1.0) {
          $0 * Double(max(0, others - $1)) / Double(layout.experts - $1)
        }
        return sum + 1 - missed
      }
    }
    self = .perExpert
    guard ranksPerNode < ranks else { return }
    var rows = Double(min(topK, layout.experts))
    if reached(1) <= Self.worthwhile * rows { (self, rows) = (.perRank, reached(1)) }
    if ranksPerNode > 1, reached(ranksPerNode) <= Self.worthwhile * rows { self = .perNode(ranks: ranksPerNode) }
  }
}
