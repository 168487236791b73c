import CrosspointCore

/// The ranks of a simulated cluster, for threads that exist already: each takes the fabric of its rank and says when it ends.
package final class SimulatedRanks: Sendable {
  package let cluster: SimulatedCluster
  private let switchboard: Switchboard
  private let memory: SimulatedMemory.Blocks

  package init(_ cluster: SimulatedCluster) {
    self.cluster = cluster
    switchboard = Switchboard(ranks: cluster.ranks, link: cluster.link)
    memory = SimulatedMemory.Blocks(ranks: cluster.ranks)
  }

  /// For one thread, once.
  package func fabric(_ rank: Int) -> any Fabric {
    SimulatedFabric(rank: rank, cluster: cluster, switchboard: switchboard, memory: memory)
  }

  /// A rank has ended; `failure` is what it threw. Others that wait for it, or will, throw `rankLost`. Once for each rank.
  package func finish(_ rank: Int, failure: (any Error)?) { switchboard.finish(rank, failure: failure) }

  /// Ends all waiting, now and later, from any thread: every exchange throws `error`.
  package func cancel(_ error: CrosspointError) {
    for rank in 0..<cluster.ranks { _ = switchboard.lose(rank, error) }
  }

  /// The first rank that ended by throwing.
  package var firstFailed: Int? { switchboard.firstFailed }
}
