import CrosspointCore
import CrosspointFabric
import CrosspointRouting
import CrosspointTestSupport
import CrosspointTokens
import Foundation
import Testing

@testable import CrosspointExchange

/// What a rank does while its bytes are under way.
@Suite struct LocalWorkTests {
  typealias Kind = TransferKind

  static let link = LinkModel(latency: .microseconds(500), bytesPerSecond: 50e6)

  /// A step with so many slices in each transfer; the last of several ranks has no tokens.
  static func step(
    _ fabric: any Fabric, _ options: ExchangeOptions = .init(), smallBytes: Int? = nil, slices: (Kind) -> Int
  ) throws -> (result: StepResult, work: [CountedWork]) {
    let exchange = try ExpertExchange(
      fabric: fabric, layout: ExpertLayout(experts: 5, hidden: 24), options: options, smallBytes: smallBytes)
    let rank = UInt64(fabric.rank)
    let count = fabric.rank == fabric.rankCount - 1 && fabric.rankCount > 1 ? 0 : 40 + 3 * fabric.rank
    var work = Kind.allCases.map { CountedWork(slices: slices($0)) }
    let result = try trainingStep(
      exchange, tokens: clusteredBatch(rows: count, hidden: 24, seed: rank),
      routing: randomRouting(tokens: count, topK: 2, experts: 5, seed: 10 * rank),
      dy: randomBatch(rows: count, hidden: 24, seed: 100 * rank)
    ) { kind throws(CrosspointError) in work[kind.rawValue].next() }
    return (result, work)
  }

  @Test(arguments: [1, 2, 3, 4], [nil, link])
  func everySliceIsDoneOnceAndInOrderWhateverComesWhen(ranks: Int, link: LinkModel?) throws {
    var cluster = SimulatedCluster(ranks: ranks, link: link)
    if ranks > 1 { cluster.faults = [.slow(1, .milliseconds(2))] }
    try cluster.run { fabric in
      for (most, smallBytes) in [(0, nil), (1, 0), (3, nil), (20_000, 0), (20_000, nil)] {
        // Some ranks have more to do than others, and some nothing.
        let (_, work) = try Self.step(fabric, smallBytes: smallBytes) { kind in
          most * ((fabric.rank + kind.rawValue) % 3)
        }
        for work in work { #expect(work.isComplete && work.done == Array(0..<work.slices)) }
      }
    }
  }

  @Test(arguments: ExchangeOptions.Copies.all(ranks: 3), [(1, nil), (1, link), (2, link), (3, nil)])
  func workChangesNoBit(copies: ExchangeOptions.Copies, _ net: (ranksPerNode: Int, link: LinkModel?)) throws {
    let options = ExchangeOptions(
      compression: .crossPolytope(), copies: copies, wire: .init(try .rotated(bits: 4)))
    let plain = try SimulatedCluster(ranks: 3).run { try Self.step($0, options) { _ in 0 }.result }
    let cluster = SimulatedCluster(ranks: 3, ranksPerNode: net.ranksPerNode, link: net.link)
    let busy = try cluster.run { try Self.step($0, options) { _ in 50 }.result }
    for (plain, busy) in zip(plain, busy) { #expect(plain.isBitwiseEqual(to: busy)) }
  }

  /// Rank 1 begins each exchange of announcements, or of bodies, only after rank 0's first slice in it.
  @Test(arguments: [StepPhase.Part.announce, .move])
  func aRankWorksAfterItHasSentAndBeforeAnythingArrives(part: StepPhase.Part) throws {
    let moves = part == .move
    let numbers = StepPhase.each(part, moves: moves).map(\.exchange)
    let begun = Kind.allCases.map { _ in Signal() }
    let events = try SimulatedCluster(ranks: 2).run { base -> [String] in
      let fabric = WatchedFabric(base) { number in
        guard base.rank == 1, let kind = numbers.firstIndex(of: number) else { return }
        #expect(begun[kind].wait(), "rank 0 does nothing during exchange \(number)")
      }
      let exchange = try ExpertExchange(
        fabric: fabric, layout: ExpertLayout(experts: 2, hidden: 8), smallBytes: moves ? 0 : nil)
      var slices = Kind.allCases.map { _ in 0 }
      _ = try trainingStep(
        exchange, tokens: randomBatch(rows: 6, hidden: 8, seed: 1),
        routing: randomRouting(tokens: 6, topK: 2, experts: 2, notSent: 0, seed: 2),
        dy: randomBatch(rows: 6, hidden: 8, seed: 3)
      ) { kind throws(CrosspointError) in
        guard fabric.rank == 0 else { return false }
        // There is work until the exchange has begun, and three slices of it then.
        guard fabric.events.contains("\(numbers[kind.rawValue]) begins") else { return true }
        fabric.events.append("slice")
        begun[kind.rawValue].raise()
        slices[kind.rawValue] += 1
        return slices[kind.rawValue] < 3
      }
      return fabric.events
    }[0]
    for number in numbers {
      let start = events.firstIndex(of: "\(number) begins")!
      #expect(events[start + 1] == "slice", "\(events)")
      #expect(events[start...].firstIndex(of: "\(number) arrives")! > start + 1)
    }
    #expect(events.count { $0 == "slice" } == 12)
  }

  /// It throws in its third slice: alone, or while the others work too; with bodies that travel with their announcements, or
  /// behind them.
  @Test(arguments: Kind.allCases, [(1, nil, nil), (1, link, 0), (2, link, nil), (2, nil, 0), (3, nil, nil)])
  func aSliceThatThrowsIsTheSameErrorOnEveryRankAndTheExchangeGoesOn(
    in phase: Kind, _ net: (ranksPerNode: Int, link: LinkModel?, smallBytes: Int?)
  ) throws {
    let cluster = SimulatedCluster(ranks: 3, ranksPerNode: net.ranksPerNode, deadline: .seconds(5), link: net.link)
    let results = cluster.results { fabric in
      let exchange = try ExpertExchange(
        fabric: fabric, layout: BadInputTests.layout, smallBytes: net.smallBytes)
      func step(failing: Bool) throws -> [Int] {
        var slices = Kind.allCases.map { _ in 0 }
        do {
          _ = try trainingStep(
            exchange, tokens: randomBatch(rows: 5, hidden: 8, seed: 1),
            routing: randomRouting(tokens: 5, topK: 2, experts: 4, seed: 2),
            dy: randomBatch(rows: 5, hidden: 8, seed: 3)
          ) { kind throws(CrosspointError) in
            slices[kind.rawValue] += 1
            if failing, kind == phase, fabric.rank == 1, slices[kind.rawValue] == 3 {
              throw CrosspointError(.outOfMemory, operation: "shared experts", argument: "rows", "no room for 9")
            }
            return slices[kind.rawValue] < 6
          }
        } catch {
          // The others may hear of it before they have done theirs.
          #expect(fabric.rank == 1 ? slices[phase.rawValue] == 3 : slices[phase.rawValue] <= 6)
          #expect(failing)
          throw error
        }
        return slices
      }
      let thrown = #expect(throws: CrosspointError.self) { try step(failing: true) }
      #expect(try step(failing: false) == [6, 6, 6, 6])
      return thrown
    }
    for result in results {
      let error = try result.get()
      #expect(error?.code == .outOfMemory)
      #expect(error?.rank == 1)
      #expect(error?.operation == "shared experts")
      #expect(error?.message == "no room for 9")
    }
  }

  @Test func aRankWhoseTransferIsRefusedDoesNothing() {
    let thrown = errors { fabric in
      let exchange = try ExpertExchange(fabric: fabric, layout: BadInputTests.layout)
      let tokens = try randomBatch(rows: 5, hidden: 8, seed: 3)
      if fabric.rank == 1 { tokens.elements[3] = .nan }
      _ = try exchange.dispatch(tokens, randomRouting(tokens: 5, topK: 2, experts: 4, notSent: 0, seed: 1)) {
        if fabric.rank == 1 { Issue.record("work for a transfer that does not take place") }
        return false
      }
    }
    for error in thrown { #expect(error.code == .nonFinite && error.rank == 1) }
  }

  @Test(arguments: StepPhase.transfers, [false, true])
  func aLostRankIsNamedToThoseWhoWork(phase: StepPhase, isSilent: Bool) {
    let fault = isSilent ? Fault.silent(2, fromExchange: phase.exchange) : .dead(2, atExchange: phase.exchange)
    // A dead rank is noticed at once; only a silent one takes the deadline, which the others must not miss on a busy machine.
    let thrown = errors(deadline: isSilent ? .milliseconds(500) : .seconds(30), faults: [fault]) { fabric in
      _ = try Self.step(fabric, smallBytes: phase.smallBytes) { _ in 100 }
    }
    #expect(thrown.count == 3)
    for error in thrown {
      #expect(error.code == .rankLost || (isSilent && error.code == .deadlineExceeded))
      #expect(error.rank == 2)
    }
  }

  @Test func itsTimeIsCountedApart() throws {
    let statistics = try SimulatedCluster(ranks: 2).run { fabric in
      let exchange = try ExpertExchange(fabric: fabric, layout: BadInputTests.layout)
      let tokens = try randomBatch(rows: 5, hidden: 8, seed: 1)
      var slices = 0
      _ = try exchange.dispatch(tokens, randomRouting(tokens: 5, topK: 2, experts: 4, seed: 1)) {
        Thread.sleep(forTimeInterval: 0.2)
        slices += 1
        return slices < 2
      }
      return exchange.statistics
    }
    for layer in statistics {
      #expect(layer.seconds.meanwhile >= 0.4)
      #expect(layer.seconds.wait < 0.4, "its own work is no waiting")
    }
  }
}
