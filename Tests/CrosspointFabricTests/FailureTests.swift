import CrosspointCore
import CrosspointFabric
import Testing

/// One rank goes wrong; all must learn of it, by name, and none may be left waiting.
struct FailureTests {
  struct Mishap: Error {}

  /// Runs 5 exchanges on every rank.
  private func fiveExchanges(_ cluster: SimulatedCluster) -> [CrosspointError?] {
    errors(
      cluster.results { fabric in
        for _ in 0..<5 { _ = try exchangeBytes(fabric, count: 8) }
      })
  }

  @Test(arguments: 0..<4, 0..<5)
  func aDeadRankIsNamedAtOnce(dead: Int, exchange: Int) {
    let cluster = SimulatedCluster(ranks: 4, deadline: .seconds(3600), faults: [.dead(dead, atExchange: exchange)])
    let errors = fiveExchanges(cluster)
    for error in errors {
      #expect(error?.code == .rankLost)
      #expect(error?.rank == dead)
    }
    #expect(Set(errors).count == 1)
  }

  @Test(arguments: 0..<3)
  func aSilentRankIsNamedWhenTheDeadlinePasses(silent: Int) {
    let cluster = SimulatedCluster(ranks: 3, deadline: .milliseconds(500), faults: [.silent(silent, fromExchange: 2)])
    let errors = fiveExchanges(cluster)
    for rank in 0..<3 where rank != silent {
      #expect(errors[rank]?.code == .deadlineExceeded)
      #expect(errors[rank]?.rank == silent)
    }
    #expect(errors[silent]?.code == .rankLost)
  }

  @Test func theLowestOfSeveralSilentRanksIsNamedAndAllAreListed() {
    let cluster = SimulatedCluster(
      ranks: 4, deadline: .milliseconds(500), faults: [.silent(3, fromExchange: 0), .silent(1, fromExchange: 0)])
    let errors = fiveExchanges(cluster)
    #expect(errors[0]?.code == .deadlineExceeded)
    #expect(errors[0]?.rank == 1)
    #expect(errors[0]?.message.contains("ranks 1, 3:") == true)
    #expect(errors[0] == errors[2])
  }

  @Test func aClusterOfSilentRanksEnds() {
    let cluster = SimulatedCluster(
      ranks: 2, deadline: .milliseconds(20), faults: [.silent(0, fromExchange: 0), .silent(1, fromExchange: 0)])
    #expect(fiveExchanges(cluster).map(\.?.code) == [.rankLost, .rankLost])
  }

  @Test func aSlowRankWithinTheDeadlineIsNoFailure() {
    let cluster = SimulatedCluster(ranks: 3, deadline: .seconds(30), faults: [.slow(2, .milliseconds(5))])
    #expect(fiveExchanges(cluster) == [nil, nil, nil])
  }

  @Test(arguments: [1e-3, 1e-300, .leastNonzeroMagnitude])
  func aLinkTooSlowForAnyDeadlineIsASilentRank(bytesPerSecond: Double) {
    let link = LinkModel(latency: .zero, bytesPerSecond: bytesPerSecond)
    let cluster = SimulatedCluster(ranks: 3, deadline: .milliseconds(60), link: link)
    #expect(fiveExchanges(cluster).allSatisfy { $0?.code == .deadlineExceeded || $0?.code == .rankLost })
  }

  @Test func aRankSlowerThanTheDeadlineIsNamed() {
    let cluster = SimulatedCluster(ranks: 3, deadline: .milliseconds(500), faults: [.slow(2, .seconds(3600))])
    for error in fiveExchanges(cluster) {
      #expect(error?.code == .deadlineExceeded)
      #expect(error?.rank == 2)
    }
  }

  @Test func aRankThatThrowsIsNamedToThoseWhoWait() throws {
    let cluster = SimulatedCluster(ranks: 3, deadline: .seconds(3600))
    let body = { @Sendable (fabric: any Fabric) in
      try fabric.barrier(operation: "test")
      if fabric.rank == 1 { throw Mishap() }
      try fabric.barrier(operation: "test")
    }
    let found = errors(cluster.results(body))
    for rank in [0, 2] {
      #expect(found[rank]?.code == .rankLost)
      #expect(found[rank]?.rank == 1)
      #expect(found[rank]?.message.contains("Mishap") == true)
    }
    // run throws the cause, not what followed from it.
    #expect(throws: Mishap.self) { try cluster.run(body) }
  }

  @Test func aRankThatReturnsTooEarlyIsNamed() {
    let found = errors(
      SimulatedCluster(ranks: 4, deadline: .seconds(3600)).results { fabric in
        if fabric.rank == 3 { return }
        try fabric.barrier(operation: "test")
      })
    for rank in 0..<3 {
      #expect(found[rank]?.code == .rankLost)
      #expect(found[rank]?.rank == 3)
    }
    #expect(found[3] == nil)
  }

  @Test func aRankThatReturnsWhenAllIsDoneHarmsNobody() throws {
    for _ in 0..<100 {
      try SimulatedCluster(ranks: 3).run { fabric in try fabric.barrier(operation: "test") }
    }
  }

  @Test(arguments: [(8, 9), (9, 8), (0, 8), (8, 0)])
  func aSenderWithAnotherSizeIsNamedOnAllRanks(sent: Int, expected: Int) {
    let found = errors(
      SimulatedCluster(ranks: 3, deadline: .seconds(3600)).results { fabric in
        var (send, receive) = ([8, 8, 8], [8, 8, 8])
        if fabric.rank == 2 { send[0] = sent }
        if fabric.rank == 0 { receive[2] = expected }
        _ = try exchangeBytes(fabric, send: send, receive: receive)
        try fabric.barrier(operation: "test")
      })
    for error in found {
      #expect(error?.code == .truncatedFrame)
      #expect(error?.rank == 2)
    }
  }

  @Test func aFlippedByteReachesOneReceiverOnce() throws {
    let cluster = SimulatedCluster(ranks: 3, faults: [.flippedByte(from: 2, to: 1, exchange: 1, offset: 5)])
    let received = try cluster.run { fabric in
      try (0..<3).map { _ in try exchangeBytes(fabric, count: 8) }
    }
    for receiver in 0..<3 {
      for exchange in 0..<3 {
        for source in 0..<3 {
          var expected = Array(repeating: UInt8(source * 16 + receiver), count: 8)
          if (receiver, exchange, source) == (1, 1, 2) { expected[5] = ~expected[5] }
          #expect(received[receiver][exchange][source] == expected)
        }
      }
    }
  }

  @Test func aFabricStaysUnusableAfterAnError() {
    let found = errors(
      SimulatedCluster(ranks: 2, faults: [.dead(1, atExchange: 0)]).results { fabric in
        #expect(throws: CrosspointError.self) { try fabric.barrier(operation: "test") }
        try fabric.barrier(operation: "test")
      })
    for error in found { #expect(error?.code == .rankLost) }
  }

  @Test func theDeadlineCanBeChangedByTheCaller() {
    let found = errors(
      SimulatedCluster(ranks: 2, deadline: .seconds(3600), faults: [.silent(1, fromExchange: 0)]).results { fabric in
        fabric.deadline = .milliseconds(20)
        try fabric.barrier(operation: "test")
      })
    #expect(found[0]?.code == .deadlineExceeded)
  }
}
