import Crosspoint
import CrosspointCore
import CrosspointOptions

/// What trials send, and where from.
extension TokenBatch {
  /// Random numbers around zero, others for each rank; no two rows are alike.
  init(randomRows rows: Int, hidden: Int, seed: UInt64, rank: Int) throws(CrosspointError) {
    try self.init(rows: rows, hidden: hidden)
    var generator = SplitMix64(seed: seed &+ UInt64(rank) &+ 1)
    for index in elements.indices { elements[index] = generator.nextUnit() - 0.5 }
  }
}

extension RoutingPattern.Place {
  /// A rank among those that share the experts of a layout.
  init(of fabric: any Fabric, _ layout: ExpertLayout) {
    let ranks = fabric.rankCount
    self.init(rank: fabric.rank, rankCount: ranks) { layout.experts(of: $0, rankCount: ranks) }
  }
}
