import CrosspointCore
import CrosspointFabric
import CrosspointTestSupport
import Foundation
import Testing

/// Work that ranks do while bytes are under way.
struct MeanwhileTests {
  /// One byte to and from every rank.
  static func exchangeByte(
    _ fabric: any Fabric, arrived: (Int) -> Void = { _ in }, meanwhile: () -> Bool
  ) throws {
    let send = [UInt8](repeating: UInt8(fabric.rank + 1), count: fabric.rankCount)
    var received = [UInt8](repeating: 0, count: fabric.rankCount)
    try send.withUnsafeBytes { send in
      try received.withUnsafeMutableBytes { received in
        try fabric.exchange(
          send: send.indices.map { .init(rebasing: send[$0...$0]) },
          receive: received.indices.map { .init(rebasing: received[$0...$0]) }, operation: "test",
          arrived: arrived, meanwhile: meanwhile)
      }
    }
    #expect(received == (0..<fabric.rankCount).map { UInt8($0 + 1) })
  }

  @Test(arguments: [1, 2, 4], [nil, LinkModel(latency: .milliseconds(2), bytesPerSecond: 1e6)])
  func workIsAskedForUntilNoneIsLeftAndNotAgainBeforeSomethingArrives(ranks: Int, link: LinkModel?) throws {
    try SimulatedCluster(ranks: ranks, link: link).run { fabric in
      for slices in [0, 1, 7, 100_000] {
        // Ranks differ in what they have to do.
        var work = CountedWork(slices: slices / (fabric.rank + 1))
        try Self.exchangeByte(fabric, arrived: { _ in work.arrive() }, meanwhile: { work.next() })
        #expect(!work.wasAskedTooOften)
        #expect(work.done == Array(0..<work.done.count))
      }
    }
  }

  /// Rank 0 works before anything reaches it, and what it sends arrives while it works: the others begin only when they hear
  /// of its first slice, which ends only when they have got its block.
  @Test(arguments: [2, 3]) func blocksArriveWhileARankWorks(ranks: Int) throws {
    let begun = Signal()
    let taken = (0..<ranks).map { _ in Signal() }
    let events = try SimulatedCluster(ranks: ranks).run { fabric -> [String] in
      guard fabric.rank == 0 else {
        #expect(begun.wait(), "rank 0 does not work")
        try Self.exchangeByte(fabric, arrived: { if $0 == 0 { taken[fabric.rank].raise() } }, meanwhile: { false })
        return []
      }
      var events: [String] = []
      func note(_ source: Int) { if source != 0 { events.append("arrived") } }
      try Self.exchangeByte(fabric, arrived: note) {
        guard events.isEmpty else { return false }
        events.append("slice")
        begun.raise()
        for rank in 1..<ranks { #expect(taken[rank].wait(), "rank \(rank) gets nothing while rank 0 works") }
        return false
      }
      return events
    }
    #expect(events[0] == ["slice"] + Array(repeating: "arrived", count: ranks - 1))
  }

  /// Rank 2 sends only when rank 0 has been asked for work again, after rank 1's block, though it had said that none is left.
  @Test func workIsAskedForAgainWhenSomethingHasArrived() throws {
    let (isOver, askedAgain) = (Signal(), Signal())
    try SimulatedCluster(ranks: 3).run { fabric in
      if fabric.rank == 1 { #expect(isOver.wait()) }
      if fabric.rank == 2 { #expect(askedAgain.wait(), "rank 0 is not asked again") }
      var sources: [Int] = []
      try Self.exchangeByte(fabric, arrived: { sources.append($0) }) {
        if fabric.rank == 0 { (sources.contains(1) ? askedAgain : isOver).raise() }
        return false
      }
    }
  }

  @Test func whatComesDuringASliceLongerThanTheDeadlineIsAccepted() throws {
    let (begun, taken) = (Signal(), Signal())
    try SimulatedCluster(ranks: 2).run { fabric in
      if fabric.rank == 1 {
        #expect(begun.wait())
        return try Self.exchangeByte(fabric, arrived: { _ in taken.raise() }, meanwhile: { false })
      }
      fabric.deadline = .milliseconds(30)
      try Self.exchangeByte(fabric) {
        begun.raise()
        #expect(taken.wait())
        Thread.sleep(forTimeInterval: 0.06)
        return false
      }
    }
  }

  @Test func ownWorkIsNobodysSilence() throws {
    let worked = Signal()
    try SimulatedCluster(ranks: 2).run { fabric in
      if fabric.rank == 1 {
        #expect(worked.wait())
        Thread.sleep(forTimeInterval: 0.05)
        return try Self.exchangeByte(fabric, meanwhile: { false })
      }
      fabric.deadline = .seconds(1)
      var slices = 0
      try Self.exchangeByte(fabric) {
        slices += 1
        Thread.sleep(forTimeInterval: 0.4)
        if slices == 3 { worked.raise() }
        return slices < 3
      }
    }
  }

  @Test(arguments: [Fault.silent(2, fromExchange: 1), .dead(2, atExchange: 1)])
  func aLostRankIsNamedToThoseWhoWork(fault: Fault) {
    let found = errors(
      SimulatedCluster(ranks: 3, deadline: .milliseconds(500), faults: [fault]).results { fabric in
        for _ in 0..<2 {
          var work = CountedWork(slices: 50)
          defer { #expect(!work.wasAskedTooOften && work.done == Array(0..<work.done.count)) }
          try Self.exchangeByte(fabric, arrived: { _ in work.arrive() }, meanwhile: { work.next() })
        }
      })
    for rank in 0..<2 {
      #expect(found[rank]?.code == .deadlineExceeded || found[rank]?.code == .rankLost)
      #expect(found[rank]?.rank == 2)
    }
    #expect(found[2]?.code == .rankLost)
  }
}
