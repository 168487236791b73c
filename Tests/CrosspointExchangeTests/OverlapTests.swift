import CrosspointCompression
import CrosspointCore
import CrosspointFabric
import CrosspointRouting
import CrosspointTestSupport
import CrosspointTokens
import Testing

@testable import CrosspointExchange

/// Transfers that are begun and finished later, several of them under way.
@Suite struct OverlapTests {
  typealias Kind = TransferKind

  static func batches(_ rank: Int, _ count: Int = 3) throws -> [MicroBatch] {
    try (0..<count).map {
      // Some ranks have no tokens.
      try MicroBatch(tokens: 13 * ((rank + $0) % 3), hidden: 24, topK: 2, experts: 5, seed: UInt64(10 * $0 + rank))
    }
  }

  static let settings: [ExchangeOptions] =
    ExchangeOptions.Copies.all(ranks: 4).flatMap { copies in
      [
        ExchangeOptions(copies: copies),
        ExchangeOptions(compression: .crossPolytope(), copies: copies, wire: .init(try! .rotated(bits: 3))),
        ExchangeOptions(copies: copies, wire: .init(.bf16), agreement: .deferred),
      ]
    } + [ExchangeOptions(compression: .crossPolytope(.init(functions: 2, width: 8)), compensation: .lowRank(2))]

  @Test(arguments: OverlapTests.settings, [1, 2, 4])
  func noBitChanges(options: ExchangeOptions, ranksPerNode: Int) throws {
    func steps(
      _ smallBytes: Int?, _ exchanges: Int,
      _ body: @escaping @Sendable ([ExpertExchange], [MicroBatch]) throws -> [StepResult]
    ) throws -> [[StepResult]] {
      try SimulatedCluster(ranks: 4, ranksPerNode: ranksPerNode).run { fabric in
        let made = try (0..<exchanges).map {
          try ExpertExchange(
            fabric: fabric, layout: ExpertLayout(experts: 5, hidden: 24), options: options, layer: $0,
            smallBytes: smallBytes)
        }
        let batches = try Self.batches(fabric.rank)
        var results = try body(made, batches)
        results += try body(made, batches)
        try made[0].settle()
        return results
      }
    }
    // Of three choices every two meet in every way.
    for (smallBytes, exchanges, reversed) in [(nil, 1, false), (nil, 2, true), (0, 1, true), (0, 2, false)] {
      let expected = try steps(smallBytes, exchanges) { try plainSteps($0, $1) }
      let overlapped = try steps(smallBytes, exchanges) { exchanges, batches in
        // Other calls of the fabric go on between.
        try overlappedSteps(exchanges, batches, reversed: reversed, inPlace: reversed) {
          var sum = [Float(1)]
          try sum.withUnsafeMutableBufferPointer {
            try exchanges[0].fabric.allreduce($0, operation: "between")
          }
          #expect(sum == [4])
        }
      }
      for (one, other) in zip(overlapped, expected) {
        for (a, b) in zip(one, other) {
          var (a, b) = (a, b)
          // Gradients of one exchange add up in the order in which calls are finished.
          if reversed { (a.compensationGradients, b.compensationGradients) = ([], []) }
          let isEqual = a.isBitwiseEqual(to: b)
          #expect(isEqual)
        }
      }
    }
  }

  /// No rank needs another to begin; and one of another node, that has begun, need not come back for others to finish.
  @Test(arguments: [1, 2]) func beginWaitsForNobodyAndFinishForNoComputingRank(ranksPerNode: Int) throws {
    let (begun, finished) = (Signal(), Signal())
    try SimulatedCluster(ranks: 2, ranksPerNode: ranksPerNode).run { fabric in
      let exchange = try ExpertExchange(
        fabric: fabric, layout: BadInputTests.layout, options: .init(agreement: .deferred))
      let tokens = try randomBatch(rows: 6, hidden: 8, seed: 1)
      let routing = try randomRouting(tokens: 6, topK: 2, experts: 4, seed: 1)
      if fabric.rank == 1 { #expect(begun.wait(), "rank 0 waits for rank 1 to begin") }
      let pending = try exchange.beginDispatch(tokens, routing)
      if fabric.rank == 0 {
        begun.raise()
        if ranksPerNode == 1 { #expect(finished.wait(), "rank 1 waits for rank 0 to finish") }
      }
      let handle = try pending.finish()
      if fabric.rank == 1 { finished.raise() }
      _ = try exchange.combine(handle.rows, handle)
      try exchange.settle()
    }
  }

  /// The begin of a transfer of a step on a handle; then its finish.
  static func step(
    _ exchange: ExpertExchange, bad kind: Kind? = nil,
    meanwhile work: (Kind) throws(CrosspointError) -> Bool = { _ in false }
  ) throws {
    let routing = try randomRouting(tokens: 12, topK: 2, experts: 4, notSent: 0, seed: 1)
    func rows(_ here: Kind, _ rows: Int) throws -> TokenBatch {
      try randomBatch(rows: here == kind ? rows + 1 : rows, hidden: 8, seed: 3)
    }
    let tokens = try rows(.dispatch, 12)
    let handle = try exchange.beginDispatch(tokens, routing).finish { () throws(CrosspointError) in try work(.dispatch)
    }
    let output = try rows(.combine, handle.rows.rows)
    _ = try exchange.beginCombine(output, handle).finish { () throws(CrosspointError) in try work(.combine) }
    let dy = try rows(.combineBackward, 12)
    let gradients = try exchange.beginCombineBackward(dy, handle).finish { () throws(CrosspointError) in
      try work(.combineBackward)
    }
    let dRows = try rows(.dispatchBackward, gradients.rows)
    _ = try exchange.beginDispatchBackward(dRows, handle).finish { () throws(CrosspointError) in
      try work(.dispatchBackward)
    }
  }

  @Test(arguments: Kind.allCases, ExchangeOptions.Copies.all(ranks: 3))
  func whatIsWrongOnOneRankIsThrownByFinishOnAll(kind: Kind, copies: ExchangeOptions.Copies) throws {
    try SimulatedCluster(ranks: 3).run { fabric in
      let exchange = try ExpertExchange(
        fabric: fabric, layout: BadInputTests.layout, options: ExchangeOptions(copies: copies))
      for throwsInWork in [false, true] {
        let error = #expect(throws: CrosspointError.self) {
          try Self.step(exchange, bad: fabric.rank == 1 && !throwsInWork ? kind : nil) { here throws(CrosspointError) in
            if throwsInWork, here == kind, fabric.rank == 1 {
              throw CrosspointError(.invalidArgument, operation: "work", argument: "rows", "none")
            }
            return false
          }
        }
        #expect(error?.code == .invalidArgument && error?.rank == 1 && error?.isAgreed == true, "\(error as Any)")
        try Self.step(exchange)
      }
    }
  }

  /// What is dropped is finished then; the ranks that do not drop it get their rows.
  @Test(arguments: [[0], [2], [0, 1, 2]]) func whatIsDroppedIsFinished(droppers: [Int]) throws {
    try SimulatedCluster(ranks: 3, deadline: .seconds(10)).run { fabric in
      let exchange = try ExpertExchange(fabric: fabric, layout: BadInputTests.layout)
      let tokens = try randomBatch(rows: 12, hidden: 8, seed: 1)
      let routing = try randomRouting(tokens: 12, topK: 2, experts: 4, notSent: 0, seed: 1)
      for _ in 0..<5 {
        if droppers.contains(fabric.rank) {
          _ = try exchange.beginDispatch(tokens, routing)
        } else {
          #expect(try exchange.beginDispatch(tokens, routing).finish().rows.rows > 0)
        }
      }
      #expect(exchange.calls.count == 1)
      try Self.step(exchange)
    }
  }

  @Test(arguments: [nil, 0]) func anotherOrderOnOneRankIsRefused(smallBytes: Int?) throws {
    let thrown = SimulatedCluster(ranks: 3, deadline: .seconds(10)).results { fabric in
      let exchange = try ExpertExchange(
        fabric: fabric, layout: BadInputTests.layout, smallBytes: smallBytes)
      let tokens = try randomBatch(rows: 12, hidden: 8, seed: 1)
      let routing = try randomRouting(tokens: 12, topK: 2, experts: 4, notSent: 0, seed: 1)
      let first = try exchange.beginDispatch(tokens, routing)
      let second = try exchange.beginDispatch(tokens, routing)
      if fabric.rank == 1 {
        _ = try second.finish()
        _ = try first.finish()
      } else {
        _ = try first.finish()
        _ = try second.finish()
      }
    }
    for result in thrown {
      let error = #expect(throws: CrosspointError.self) { try result.get() }
      #expect(error?.code == .ranksDisagree && error?.rank == 1, "\(error as Any)")
    }
  }

  @Test func aHandleServesOneTransferAtATime() throws {
    try SimulatedCluster(ranks: 2).run { fabric in
      let exchange = try ExpertExchange(fabric: fabric, layout: BadInputTests.layout)
      let tokens = try randomBatch(rows: 12, hidden: 8, seed: 1)
      let routing = try randomRouting(tokens: 12, topK: 2, experts: 4, notSent: 0, seed: 1)
      let handle = try exchange.dispatch(tokens, routing)
      let pending = try exchange.beginCombine(handle.rows, handle)
      let error = #expect(throws: CrosspointError.self) { _ = try exchange.combine(handle.rows, handle) }
      #expect(error?.code == .handleMisuse && error?.message.contains("under way") == true)
      #expect(try pending.finish().rows == 12)
      _ = try exchange.combineBackward(tokens, handle)
    }
  }

  /// As many calls, buffers and bytes after a thousand steps as after a few.
  /// Several at once, so that the memory serves one dispatch that is larger.
  @Test(arguments: ExchangeOptions.Copies.all(ranks: 2)) func droppedHandlesGiveTheirMemoryBack(
    copies: ExchangeOptions.Copies
  ) throws {
    func peak(_ capacity: Int, few: Int) throws -> Int {
      try SimulatedCluster(ranks: 2).run { fabric in
        let exchange = try ExpertExchange(
          fabric: fabric, layout: ExpertLayout(experts: 4, hidden: 256),
          options: .init(copies: copies, capacityBytes: capacity))
        func dispatch(_ count: Int) throws -> DispatchHandle {
          try exchange.dispatch(
            randomBatch(rows: count, hidden: 256, seed: 1),
            randomRouting(tokens: count, topK: 2, experts: 4, notSent: 0, seed: 2))
        }
        try withExtendedLifetime((0..<few).map { _ in try dispatch(250) }) {}
        _ = try dispatch(1000)
        return exchange.peakBufferBytes
      }.max()!
    }
    let capacity = try peak(.max, few: 0) * 5 / 4
    #expect(try peak(capacity, few: 4) <= capacity)
  }

  @Test(arguments: ExchangeOptions.Copies.all(ranks: 2)) func nothingGrows(copies: ExchangeOptions.Copies) throws {
    try SimulatedCluster(ranks: 2).run { fabric in
      let exchange = try ExpertExchange(
        fabric: fabric, layout: ExpertLayout(experts: 5, hidden: 24), options: .init(copies: copies))
      let batches = try Self.batches(fabric.rank)
      for _ in 0..<10 { _ = try overlappedSteps([exchange], batches) }
      let (allocations, bytes) = (exchange.pool.allocations, exchange.peakBufferBytes)
      for _ in 0..<1000 { _ = try overlappedSteps([exchange], batches) }
      #expect(exchange.calls.count == 3)
      #expect(exchange.pool.allocations == allocations && exchange.peakBufferBytes == bytes)
    }
  }

  /// A rank that goes away between begin and finish, or in any round, is named.
  @Test(arguments: 3..<12, [false, true]) func aLostRankIsNamed(exchange: Int, isSilent: Bool) {
    let fault = isSilent ? Fault.silent(2, fromExchange: exchange) : .dead(2, atExchange: exchange)
    let thrown = errors(deadline: isSilent ? .milliseconds(500) : .seconds(20), faults: [fault]) { fabric in
      let exchange = try ExpertExchange(
        fabric: fabric, layout: ExpertLayout(experts: 5, hidden: 24), smallBytes: 0)
      _ = try overlappedSteps([exchange], Self.batches(fabric.rank))
    }
    #expect(thrown.count == 3)
    for error in thrown {
      #expect(error.rank == 2 && (error.code == .rankLost || error.code == .deadlineExceeded), "\(error)")
    }
  }
}
