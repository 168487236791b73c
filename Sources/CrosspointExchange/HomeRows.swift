import CrosspointCore
import CrosspointTokens

/// Where the rows of this rank's tokens lie, by destination: in its own memory, or in that of a rank of its node.
struct HomeRows {
  /// Where the first row of all destinations would lie, if all lay where those of this one do.
  private var firsts: [RowPointer] = []
  /// Whether the rows of a destination lie in the memory of its rank.
  private var isElsewhere: [Bool] = []

  /// Finds the rows of a transfer.
  ///
  /// - Parameters:
  ///   - first: of this rank's memory for them, in the order of destinations.
  ///   - inNode: whether those of ranks with a direct route lie in the transfer's ``Transfer/nodeRows``.
  mutating func find(
    _ transfer: Transfer, _ plan: borrowing RowPlan, _ first: RowPointer, inNode: Bool,
    hidden: Int, destinations: Destinations
  ) {
    firsts.removeAll(keepingCapacity: true)
    isElsewhere.removeAll(keepingCapacity: true)
    for rank in 0..<transfer.fabric.rankCount {
      let isDirect = inNode && transfer.route(rank) == .direct
      for (group, destination) in destinations.served(by: rank).enumerated() {
        let earlier = plan.rows(of: destination).lowerBound
        firsts.append(isDirect ? transfer.nodeRows[rank][group].row(-earlier, hidden: hidden) : first)
        isElsewhere.append(isDirect)
      }
    }
  }

  /// A row of a destination, counted over all.
  @inline(__always)
  func row(_ row: Int, of destination: Int, hidden: Int) -> RowPointer {
    firsts[destination].row(row, hidden: hidden)
  }

  @inline(__always)
  func isElsewhere(_ destination: Int) -> Bool { isElsewhere[destination] }
}
