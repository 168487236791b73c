import CrosspointCore
import CrosspointFabric
import CrosspointTestSupport
import Testing

struct CollectiveTests {
  /// Sizes around the switch from one exchange to two, with remainders; ranks that share nothing evenly.
  @Test(arguments: [1, 2, 3, 5], [0, 1, 2, 4, 511, 512, 513, 4099])
  func allreduceAddsInRankOrderOnEveryRank(ranks: Int, count: Int) throws {
    let inputs = (0..<ranks).map { randomFloats(count, seed: UInt64($0 + 1)) }
    var expected = inputs[0]
    for input in inputs.dropFirst() {
      for index in 0..<count { expected[index] += input[index] }
    }
    let sums = try SimulatedCluster(ranks: ranks).run { fabric in try fabric.sum(inputs[fabric.rank]) }
    for sum in sums { #expect(firstBitDifference(sum, expected) == nil) }
  }

  @Test func allreduceKeepsSignedZerosAndInfinities() throws {
    for count in [1, 1000] {
      let sums = try SimulatedCluster(ranks: 3).run { fabric in
        try fabric.sum(Array(repeating: fabric.rank == 1 ? .infinity : 1, count: count))
          + fabric.sum(Array(repeating: -0.0, count: count))
      }
      for sum in sums {
        #expect(sum[..<count].allSatisfy { $0 == .infinity })
        #expect(sum[count...].allSatisfy { $0 == 0 && $0.sign == .minus })
      }
    }
  }

  @Test(arguments: [3, 1000])
  func allreduceAddsDoubles(count: Int) throws {
    try SimulatedCluster(ranks: 3).run { fabric in
      var doubles = Array(repeating: 0.1 * Double(fabric.rank), count: count)
      try doubles.withUnsafeMutableBufferPointer { try fabric.allreduce($0, operation: "test") }
      #expect(doubles == Array(repeating: 0.0 + 0.1 + 0.2, count: count))
    }
  }

  @Test(arguments: [1, 2, 4], [0, 1, 16])
  func allgatherLaysBlocksInRankOrder(ranks: Int, size: Int) throws {
    let gathered = try SimulatedCluster(ranks: ranks).run { fabric in
      let mine = [UInt8](repeating: UInt8(fabric.rank + 1), count: size)
      var all = [UInt8](repeating: 0, count: ranks * size)
      try mine.withUnsafeBytes { mine in
        try all.withUnsafeMutableBytes { try fabric.allgather(mine, into: $0, operation: "test") }
      }
      return all
    }
    let expected = (0..<ranks).flatMap { [UInt8](repeating: UInt8($0 + 1), count: size) }
    for all in gathered { #expect(all == expected) }
  }

  @Test(arguments: [1, 2, 4])
  func broadcastCopiesTheRootsBytes(ranks: Int) throws {
    for root in 0..<ranks {
      let values = try SimulatedCluster(ranks: ranks).run { fabric in
        var value = UInt64(fabric.rank) + 100
        try withUnsafeMutableBytes(of: &value) { try fabric.broadcast($0, from: root, operation: "test") }
        return value
      }
      #expect(values == Array(repeating: UInt64(root) + 100, count: ranks))
    }
  }

  @Test func nobodyPassesABarrierBeforeTheLastHasCome() throws {
    let cluster = SimulatedCluster(ranks: 3, faults: [.slow(1, .milliseconds(30))])
    let times = try cluster.run { fabric in
      let start = ContinuousClock.now
      try fabric.barrier(operation: "test")
      return ContinuousClock.now - start
    }
    for time in times { #expect(time >= .milliseconds(25)) }
  }

  @Test func sizesThatDifferAreCaught() {
    let results = SimulatedCluster(ranks: 2).results { fabric in
      try fabric.sum(randomFloats(10 + fabric.rank, seed: 1))
    }
    for error in errors(results) { #expect(error?.code == .truncatedFrame) }
  }
}
