import CrosspointCore
import CrosspointFabric
import CrosspointTestSupport
import Testing

struct SharedMemoryTests {
  @Test func ranksOfANodeReadWhatOneOfThemWrote() throws {
    let sums = try SimulatedCluster(ranks: 4, ranksPerNode: 2).run { fabric in
      let memory = try #require(fabric.sharedMemory)
      let mine = try #require(memory.allocate(bytes: 64))
      mine.storeBytes(of: fabric.rank + 1, as: Int.self)
      let address = [try #require(memory.address(of: mine))]
      var addresses = [UInt64](repeating: 0, count: 4)
      try address.withUnsafeBytes { own in
        try addresses.withUnsafeMutableBytes { all in
          try fabric.exchange(
            send: Array(repeating: own, count: 4),
            receive: (0..<4).map { UnsafeMutableRawBufferPointer(rebasing: all[$0 * 8..<$0 * 8 + 8]) },
            operation: "test")
        }
      }
      var sum = 0
      for rank in 0..<4 where memory.reaches(rank) {
        sum += try memory.pointer(to: addresses[rank], bytes: 64, of: rank).load(as: Int.self)
      }
      try fabric.barrier(operation: "test")
      memory.deallocate(mine, bytes: 64)
      return sum
    }
    #expect(sums == [3, 3, 7, 7])
  }

  @Test func anAddressOfNoMemoryIsRefused() throws {
    try SimulatedCluster(ranks: 2, ranksPerNode: 2).run { fabric in
      let memory = try #require(fabric.sharedMemory)
      let mine = try #require(memory.allocate(bytes: 64))
      defer { memory.deallocate(mine, bytes: 64) }
      let address = try #require(memory.address(of: mine))
      for (address, bytes) in [(address, 65), (0, 1), (address - 1, 1), (address + 64, 1)] {
        let error = #expect(throws: CrosspointError.self) {
          _ = try memory.pointer(to: address, bytes: bytes, of: fabric.rank)
        }
        #expect(error?.code == .corruptFrame && error?.rank == fabric.rank)
      }
    }
  }

  /// A rank that has not heard of it may still write there.
  @Test func whatAFailedRankGivesBackIsGivenToNobody() {
    let begun = Signal()
    let results = SimulatedCluster(ranks: 2, ranksPerNode: 2, deadline: .milliseconds(50)).results { fabric in
      let memory = try #require(fabric.sharedMemory)
      let mine = try #require(memory.allocate(bytes: 4096))
      let address = try #require(memory.address(of: mine))
      if fabric.rank == 1 { #expect(begun.wait()) }
      #expect(throws: CrosspointError.self) { try fabric.barrier(operation: "test") }
      memory.deallocate(mine, bytes: 4096)
      let next = try #require(memory.allocate(bytes: 4096))
      #expect(next != mine)
      #expect(try memory.pointer(to: address, bytes: 4096, of: fabric.rank) == mine)
      memory.deallocate(next, bytes: 4096)
      if fabric.rank == 0 { begun.raise() }
    }
    for result in results { #expect(throws: Never.self) { try result.get() } }
  }

  @Test func ranksThatAreAloneShareNothing() throws {
    let shared = try SimulatedCluster(ranks: 2).run { $0.sharedMemory != nil }
    #expect(shared == [false, false])
  }
}
