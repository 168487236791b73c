import CrosspointCore

/// What the rows of an exchange are addressed to, as one rank sees it: experts, or with shared copies nodes of some ranks.
///
/// A row for a node goes to the rank there that has the same place in its node as the sender has in its own. A node of one
/// rank is that rank.
struct Destinations {
  private let layout: ExpertLayout
  private let rank: Int
  private let rankCount: Int
  /// The ranks of a node; `nil` where rows are addressed to experts.
  private let nodeSize: Int?
  /// `[experts]`, where nodes are what rows are addressed to: the node of each expert, and its place among those there.
  private let places: [(node: Int32, place: Int32)]

  init(_ layout: ExpertLayout, rank: Int, rankCount: Int, nodeSize: Int?) {
    (self.layout, self.rank, self.rankCount, self.nodeSize) = (layout, rank, rankCount, nodeSize)
    var places: [(node: Int32, place: Int32)] = []
    if let nodeSize {
      for expert in 0..<layout.experts {
        let node = Int32(layout.rank(of: expert, rankCount: rankCount) / nodeSize)
        places.append((node, places.last?.node == node ? places.last!.place + 1 : 0))
      }
    }
    self.places = places
  }

  /// How many there are.
  var count: Int { nodeSize.map { rankCount / $0 } ?? layout.experts }

  /// The most that one rank serves.
  var mostPerRank: Int { nodeSize == nil ? max(1, layout.mostExperts(rankCount: rankCount)) : 1 }

  /// Those for which this rank sends rows to `other`.
  func served(by other: Int) -> Range<Int> {
    guard let nodeSize else { return layout.experts(of: other, rankCount: rankCount) }
    let node = other / nodeSize
    return node..<(other % nodeSize == rank % nodeSize ? node + 1 : node)
  }

  /// This rank's own.
  var local: Range<Int> { served(by: rank) }

  /// The rank to which this one sends rows for a destination.
  func rank(of destination: Int) -> Int {
    nodeSize.map { destination * $0 + rank % $0 } ?? layout.rank(of: destination, rankCount: rankCount)
  }

  /// The destination of an expert's rows.
  func destination(of expert: Int) -> Int { nodeSize == nil ? expert : Int(places[expert].node) }

  /// An expert's place among those of its destination.
  func place(of expert: Int) -> Int { nodeSize == nil ? 0 : Int(places[expert].place) }

  /// The experts of a destination.
  func experts(of destination: Int) -> Range<Int> {
    guard let nodeSize else { return destination..<destination + 1 }
    let first = layout.experts(of: destination * nodeSize, rankCount: rankCount).lowerBound
    return first..<layout.experts(of: (destination + 1) * nodeSize - 1, rankCount: rankCount).upperBound
  }

  /// The experts of the destinations that this rank serves.
  var localExperts: Range<Int> {
    nodeSize == nil
      ? layout.experts(of: rank, rankCount: rankCount)
      : experts(of: local.lowerBound)
  }

  /// The most experts of one destination: the first has as many as any.
  var mostExperts: Int { experts(of: 0).count }
}
