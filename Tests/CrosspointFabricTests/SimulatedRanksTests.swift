import CrosspointCore
import CrosspointTestSupport
import Synchronization
import Testing

@testable import CrosspointFabric

/// Ranks whose threads are the caller's.
@Suite struct SimulatedRanksTests {
  @Test func threadsOfTheCallersAreRanks() throws {
    let ranks = SimulatedRanks(SimulatedCluster(ranks: 3, ranksPerNode: 3))
    let sums = run(ranks) { fabric in
      var sum = [Float(fabric.rank)]
      try sum.withUnsafeMutableBufferPointer { try fabric.allreduce($0, operation: "test") }
      return sum[0]
    }
    #expect(sums.compactMap { try? $0.get() } == [3, 3, 3])
  }

  @Test func aRankThatEndsIsNamedToTheOthers() throws {
    struct Bad: Error {}
    let ranks = SimulatedRanks(SimulatedCluster(ranks: 2))
    let results = run(ranks) { fabric in
      if fabric.rank == 1 { throw Bad() }
      try fabric.barrier(operation: "test")
      return 0
    }
    #expect { try results[0].get() } throws: { ($0 as? CrosspointError)?.code == .rankLost }
    #expect(ranks.firstFailed == 1)
  }

  @Test func whatIsCancelledWaitsForNobody() throws {
    let ranks = SimulatedRanks(SimulatedCluster(ranks: 3))
    let stop = CrosspointError(.interrupted, operation: "test", argument: "cluster", "stopped")
    let results = run(ranks) { fabric in
      // Rank 2 never comes, which only the deadline would end.
      if fabric.rank == 2 { ranks.cancel(stop) } else { try fabric.barrier(operation: "test") }
      return 0
    }
    for rank in 0..<2 { #expect { try results[rank].get() } throws: { ($0 as? CrosspointError) == stop } }
  }

  /// Each rank in a thread of its own.
  private func run(
    _ ranks: SimulatedRanks, _ body: @escaping @Sendable (any Fabric) throws -> Float
  ) -> [Result<Float, any Error>] {
    let results = Mutex([Int: Result<Float, any Error>]())
    inThreads(count: ranks.cluster.ranks) { rank in
      let result = Result { try body(ranks.fabric(rank)) }
      if case .failure(let error) = result { ranks.finish(rank, failure: error) }
      results.withLock { $0[rank] = result }
    } missing: { _, _ in
    }
    return results.withLock { results in (0..<ranks.cluster.ranks).map { results[$0]! } }
  }
}
