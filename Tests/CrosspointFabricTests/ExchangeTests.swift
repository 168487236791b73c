import CrosspointCore
import CrosspointFabric
import CrosspointTestSupport
import Testing

struct ExchangeTests {
  @Test(arguments: [1, 2, 3, 4, 7])
  func everyBlockReachesItsRank(ranks: Int) throws {
    let received = try SimulatedCluster(ranks: ranks).run { fabric in
      try exchangeBytes(fabric, count: 3)
    }
    for (receiver, blocks) in received.enumerated() {
      for (source, block) in blocks.enumerated() {
        #expect(block == Array(repeating: UInt8(source * 16 + receiver), count: 3))
      }
    }
  }

  @Test func randomUnequalAndEmptyBlocksArriveWhole() throws {
    var generator = SplitMix64(seed: 11)
    for _ in 0..<20 {
      let ranks = Int.random(in: 1...5, using: &generator)
      // lengths[s][r]: what s sends to r; a third of the blocks is empty.
      let lengths = (0..<ranks).map { _ in
        (0..<ranks).map { _ in Bool.random(using: &generator) ? Int.random(in: 0...2000, using: &generator) : 0 }
      }
      let received = try SimulatedCluster(ranks: ranks).run { fabric in
        try exchangeBytes(fabric, send: lengths[fabric.rank], receive: lengths.map { $0[fabric.rank] })
      }
      for receiver in 0..<ranks {
        for source in 0..<ranks {
          let expected = Array(repeating: UInt8(source * 16 + receiver), count: lengths[source][receiver])
          #expect(received[receiver][source] == expected)
        }
      }
    }
  }

  /// Block i of a rank fills block i of another, empty ones among them; a rank is reported when all its blocks are there.
  @Test func severalBlocksPerRankArriveInPlace() throws {
    @Sendable func byte(_ source: Int, _ receiver: Int, _ piece: Int) -> UInt8 {
      UInt8(source * 36 + receiver * 6 + piece + 1)
    }
    try SimulatedCluster(ranks: 3).run { fabric in
      let lengths = [5, 0, 64]
      let outgoing = (0..<9).map { block in
        let piece = UnsafeMutableRawBufferPointer.allocate(byteCount: lengths[block % 3], alignment: 8)
        _ = piece.initializeMemory(as: UInt8.self, repeating: byte(fabric.rank, block / 3, block % 3))
        return piece
      }
      let incoming = (0..<9).map { block in
        UnsafeMutableRawBufferPointer.allocate(byteCount: lengths[block % 3], alignment: 8)
      }
      defer { for piece in outgoing + incoming { piece.deallocate() } }
      var reported: [Int] = []
      try fabric.exchange(
        send: outgoing.map { UnsafeRawBufferPointer($0) }, receive: incoming, operation: "test"
      ) { source in
        reported.append(source)
        for piece in 0..<3 {
          #expect(incoming[source * 3 + piece].allSatisfy { $0 == byte(source, fabric.rank, piece) })
        }
      }
      #expect(reported.sorted() == [0, 1, 2])
    }
  }

  /// Of 8 bytes up to 5 may be missing.
  @Test(arguments: [2, 3, 7, 8, 9])
  func aBlockMayBeShorterByTheSlackAndNoMore(count: Int) {
    let results = SimulatedCluster(ranks: 2, deadline: .seconds(5)).results { fabric in
      let send = [UInt8](repeating: 7, count: 16)
      var received = [UInt8](repeating: 0, count: 16)
      try send.withUnsafeBytes { send in
        try received.withUnsafeMutableBytes { received in
          try fabric.exchange(
            send: [5, 5].enumerated().map { peer, bytes in
              UnsafeRawBufferPointer(rebasing: send[..<(peer == 0 && fabric.rank == 1 ? count : bytes)])
            },
            receive: [0, 8].map { UnsafeMutableRawBufferPointer(rebasing: received[$0..<$0 + 8]) }, slack: 5,
            operation: "test", arrived: { _ in }, meanwhile: { false })
        }
      }
      return fabric.rank == 0 ? received[8..<16].count { $0 == 7 } : count
    }
    let thrown = errors(results)
    if (3...8).contains(count) {
      #expect(thrown == [nil, nil])
      #expect((try? results[0].get()) == count)
    } else {
      #expect(thrown[0]?.code == .truncatedFrame && thrown[0]?.rank == 1)
    }
  }

  @Test func manyExchangesKeepTheirOrder() throws {
    let sums = try SimulatedCluster(ranks: 4).run { fabric in
      var seen: [Float] = []
      for step in 0..<200 { seen.append(try fabric.sum([Float(step * (fabric.rank + 1))])[0]) }
      return seen
    }
    for seen in sums { #expect(seen == (0..<200).map { Float($0 * 10) }) }
  }

  @Test func eachSourceIsReportedOnceAndComplete() throws {
    try SimulatedCluster(ranks: 4).run { fabric in
      let send = [UInt8](repeating: UInt8(fabric.rank + 1), count: 64)
      var received = [UInt8](repeating: 0, count: 256)
      var sources: [Int] = []
      try send.withUnsafeBytes { send in
        try received.withUnsafeMutableBytes { received in
          let blocks = (0..<4).map { UnsafeMutableRawBufferPointer(rebasing: received[$0 * 64..<($0 + 1) * 64]) }
          try fabric.exchange(send: Array(repeating: send, count: 4), receive: blocks, operation: "test") { source in
            sources.append(source)
            #expect(blocks[source].allSatisfy { $0 == UInt8(source + 1) })
          }
        }
      }
      #expect(sources.sorted() == [0, 1, 2, 3])
    }
  }

  @Test func aLinkDelaysTrafficWithOthersOnly() throws {
    let link = LinkModel(latency: .milliseconds(20), bytesPerSecond: 1e5)
    // 2000 bytes to each of 2 peers: the port is busy for 40 ms, then 20 ms of latency.
    let times = try SimulatedCluster(ranks: 3, link: link).run { fabric in
      let start = ContinuousClock.now
      _ = try exchangeBytes(fabric, count: 2000)
      return ContinuousClock.now - start
    }
    for time in times { #expect(time >= .milliseconds(60)) }
    let endless = LinkModel(latency: .seconds(3600), bytesPerSecond: 1)
    let own = try SimulatedCluster(ranks: 2, deadline: .seconds(5), link: endless).run { fabric in
      let lengths = (0..<2).map { $0 == fabric.rank ? 100 : 0 }
      return try exchangeBytes(fabric, send: lengths, receive: lengths)
    }
    #expect(own[1][1].count == 100)
  }

  @Test func aLinkDoesNotChangeTheBytes() throws {
    let body = { @Sendable (fabric: any Fabric) in try fabric.sum(randomFloats(1500, seed: UInt64(fabric.rank))) }
    let plain = try SimulatedCluster(ranks: 3).run(body)
    let slow = try SimulatedCluster(
      ranks: 3, link: LinkModel(latency: .milliseconds(1), bytesPerSecond: 1e6), faults: [.slow(1, .milliseconds(5))]
    ).run(body)
    for rank in 0..<3 { #expect(firstBitDifference(plain[rank], slow[rank]) == nil) }
  }
}
