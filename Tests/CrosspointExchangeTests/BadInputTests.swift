import CrosspointCompression
import CrosspointCore
import CrosspointFabric
import CrosspointRouting
import CrosspointTestSupport
import CrosspointTokens
import Testing

@testable import CrosspointExchange

/// Runs a body on every rank and gives each rank's error; a rank that does not throw is a test failure.
func errors(
  ranks: Int = 3, ranksPerNode: Int = 1, deadline: Duration = .seconds(5), faults: [Fault] = [],
  _ body: @escaping @Sendable (any Fabric) throws -> Void
) -> [CrosspointError] {
  let cluster = SimulatedCluster(ranks: ranks, ranksPerNode: ranksPerNode, deadline: deadline, faults: faults)
  return cluster.results(body).compactMap { result in
    switch result {
    case .success:
      Issue.record("a rank did not throw")
      return nil
    case .failure(let error):
      return error as? CrosspointError
    }
  }
}

@Suite struct BadInputTests {
  static let layout = try! ExpertLayout(experts: 4, hidden: 8)

  static func step(_ exchange: ExpertExchange, tokens: borrowing TokenBatch) throws {
    _ = try trainingStep(
      exchange, tokens: tokens, routing: randomRouting(tokens: tokens.rows, topK: 2, experts: 4, notSent: 0, seed: 1),
      dy: randomBatch(rows: tokens.rows, hidden: 8, seed: 2))
  }

  @Test(arguments: [Float.nan, .infinity, -.infinity])
  func nonFiniteTokensAreNamedOnEveryRank(value: Float) {
    let thrown = errors { fabric in
      let exchange = try ExpertExchange(fabric: fabric, layout: Self.layout)
      let tokens = try randomBatch(rows: 5, hidden: 8, seed: 3)
      if fabric.rank == 1 { tokens.elements[3 * 8 + 6] = value }
      try Self.step(exchange, tokens: tokens)
    }
    #expect(thrown.count == 3)
    for error in thrown {
      #expect(error.code == .nonFinite)
      #expect(error.rank == 1)
      #expect(error.message.contains("row 3, column 6"))
      #expect(error == thrown[0])
    }
  }

  /// A value that its format would turn into something else is refused by name, and whether NaN may travel is no matter.
  @Test(
    arguments: [("bf16", Float(1e37)), ("rotated:4", 1e37), ("entropy:4", 1e37), ("fp16", 1e5)],
    [ExchangeOptions.NonFinitePolicy.error, .propagate])
  func tokensBeyondTheBoundOfTheirFormatAreNamed(
    sent: (format: String, value: Float), nonFinite: ExchangeOptions.NonFinitePolicy
  ) throws {
    let format = try #require(WireFormat(sent.format))
    let thrown = errors { fabric in
      let exchange = try ExpertExchange(
        fabric: fabric, layout: Self.layout, options: .init(wire: .init(format), nonFinite: nonFinite))
      let tokens = try randomBatch(rows: 5, hidden: 8, seed: 3)
      if fabric.rank == 1 { for row in 0..<5 { tokens.elements[row * 8 + 6] = sent.value } }
      try Self.step(exchange, tokens: tokens)
    }
    #expect(thrown.count == 3)
    for error in thrown {
      #expect(error.code == .nonFinite && error.operation == "dispatch" && error.rank == 1)
      #expect(error.message.contains("column 6"))
      #expect(error.message.contains("\(sent.value); \(sent.format) carries magnitudes up to \(format.bound)"))
      if nonFinite == .error { #expect(error.message.contains("row 0")) }
      #expect(error == thrown[0])
    }
  }

  @Test func nonFiniteTokensTravelWhenThePolicySaysSo() throws {
    try SimulatedCluster(ranks: 2).run { fabric in
      let exchange = try ExpertExchange(fabric: fabric, layout: Self.layout, options: .init(nonFinite: .propagate))
      let tokens = try randomBatch(rows: 4, hidden: 8, seed: 3)
      tokens.elements[9] = .nan
      let routing = try Routing(
        topkIndices: [0, 1, 2, 3], topkWeights: [1, 1, 1, 1], topK: 1, experts: 4)
      let handle = try exchange.dispatch(tokens, routing)
      let y = try exchange.combine(handle.rows, handle)
      #expect(firstBitDifference(y.array, tokens.array) == nil)
    }
  }

  @Test func differentOptionsNameRankAndOption() {
    let thrown = errors { fabric in
      _ = try ExpertExchange(
        fabric: fabric, layout: Self.layout, options: .init(wire: fabric.rank == 2 ? .init(.bf16) : .init(.fp32)))
    }
    for error in thrown {
      #expect(error.code == .ranksDisagree)
      #expect(error.rank == 2)
      #expect(error.argument == "wire-dispatch")
      #expect(error.message.contains("bf16 on rank 2, fp32 on rank 0"))
    }
  }

  @Test func differentLayoutsAreRefused() {
    for error in errors({ fabric in
      _ = try ExpertExchange(fabric: fabric, layout: ExpertLayout(experts: 4 + fabric.rank % 2, hidden: 8))
    }) {
      #expect(error.code == .ranksDisagree)
      #expect(error.argument == "experts")
      #expect(error.message.contains("5 on rank 1"))
    }
  }

  @Test func aLayerOfOneRankThatIsNoneIsRefusedOnAll() {
    for (copies, layer) in [(ExchangeOptions.Copies.perExpert, -1), (.perNode(ranks: 3), 1 << 31)] {
      let thrown = errors { fabric in
        let layer = fabric.rank == 1 ? layer : 0
        _ = try ExpertExchange(fabric: fabric, layout: Self.layout, options: .init(copies: copies), layer: layer)
      }
      #expect(thrown.count == 3)
      for error in thrown {
        #expect(error.code == .invalidArgument)
        #expect(error.rank == 1)
        #expect(error.argument == "layer")
        #expect(error.message == "\(layer); 0 to 2147483647 is possible")
      }
    }
  }

  @Test func wrongShapesAreRefusedOnEveryRank() {
    let wrong: [@Sendable (ExpertExchange) throws -> Void] = [
      { try Self.step($0, tokens: randomBatch(rows: 3, hidden: 7, seed: 1)) },
      { exchange in
        _ = try exchange.dispatch(
          randomBatch(rows: 3, hidden: 8, seed: 1), randomRouting(tokens: 4, topK: 1, experts: 4, seed: 1))
      },
      { exchange in
        _ = try exchange.dispatch(
          randomBatch(rows: 3, hidden: 8, seed: 1), randomRouting(tokens: 3, topK: 1, experts: 5, seed: 1))
      },
    ]
    for body in wrong {
      let thrown = errors { fabric in
        let exchange = try ExpertExchange(fabric: fabric, layout: Self.layout)
        if fabric.rank == 0 { try body(exchange) }
        try Self.step(exchange, tokens: randomBatch(rows: 3, hidden: 8, seed: 1))
      }
      #expect(thrown.count == 3)
      for error in thrown {
        #expect(error.code == .invalidArgument)
        #expect(error.rank == 0)
      }
    }
  }

  @Test func outputsOfTheWrongSizeAreRefused() {
    for error in errors({ fabric in
      let exchange = try ExpertExchange(fabric: fabric, layout: Self.layout)
      let handle = try exchange.dispatch(
        randomBatch(rows: 6, hidden: 8, seed: 1), randomRouting(tokens: 6, topK: 1, experts: 4, seed: 1))
      _ = try exchange.combine(randomBatch(rows: 1, hidden: 8, seed: 1), handle)
    }) {
      #expect(error.code == .invalidArgument)
      #expect(error.argument == "output")
    }
  }

  @Test func aHandleIsGoodOnceInOrderAndForItsOwnExchange() {
    let misuses: [@Sendable (ExpertExchange, ExpertExchange, DispatchHandle) throws -> Void] = [
      { exchange, _, handle in
        _ = try exchange.combine(handle.rows, handle)
        _ = try exchange.combine(handle.rows, handle)
      },
      { _, other, handle in _ = try other.combine(handle.rows, handle) },
      { exchange, _, handle in _ = try exchange.dispatchBackward(handle.rows, handle) },
      { exchange, _, handle in _ = try exchange.combineBackward(randomBatch(rows: 6, hidden: 8, seed: 1), handle) },
    ]
    for misuse in misuses {
      for error in errors({ fabric in
        let exchange = try ExpertExchange(fabric: fabric, layout: Self.layout)
        let other = try ExpertExchange(fabric: fabric, layout: Self.layout)
        let handle = try exchange.dispatch(
          randomBatch(rows: 6, hidden: 8, seed: 1), randomRouting(tokens: 6, topK: 1, experts: 4, seed: 1))
        try misuse(exchange, other, handle)
      }) {
        #expect(error.code == .handleMisuse)
      }
    }
  }

  @Test func ranksAtDifferentStepsAreCaught() {
    for error in errors({ fabric in
      let exchange = try ExpertExchange(fabric: fabric, layout: Self.layout)
      let tokens = try randomBatch(rows: 6, hidden: 8, seed: 1)
      let routing = try randomRouting(tokens: 6, topK: 1, experts: 4, seed: 1)
      let handle = try exchange.dispatch(tokens, routing)
      if fabric.rank == 1 { _ = try exchange.dispatch(tokens, routing) }
      _ = try exchange.combine(handle.rows, handle)
    }) {
      #expect(error.code == .ranksDisagree && error.isAgreed)
      #expect(error.rank == 1 && error.message.contains("rank 1 is at dispatch (transfer 2)"), "\(error)")
    }
  }

  /// Two dispatches of as many rows: their handles look alike.
  @Test func handlesOfDifferentDispatchesAreCaught() {
    for error in errors({ fabric in
      let exchange = try ExpertExchange(fabric: fabric, layout: Self.layout)
      let tokens = try randomBatch(rows: 6, hidden: 8, seed: 1)
      let routing = try randomRouting(tokens: 6, topK: 1, experts: 4, seed: 1)
      let handles = [try exchange.dispatch(tokens, routing), try exchange.dispatch(tokens, routing)]
      let handle = handles[fabric.rank == 2 ? 1 : 0]
      _ = try exchange.combine(handle.rows, handle)
    }) {
      #expect(error.code == .ranksDisagree && error.isAgreed && error.rank == 2 && error.operation == "combine")
      #expect(error.message.contains("the handle of dispatch 2, rank 0 that of dispatch 1"), "\(error)")
    }
  }

  @Test func aCapTooSmallForTheExchangeItselfIsAnErrorOnEveryRank() {
    let thrown = errors { fabric in
      _ = try ExpertExchange(
        fabric: fabric, layout: Self.layout, options: .init(capacityBytes: fabric.rank == 1 ? 10 : .max))
    }
    #expect(thrown.count == 3)
    for error in thrown {
      #expect(error.code == .outOfMemory)
      #expect(error.rank == 1)
    }
  }

  @Test func aCapTooSmallForAStepIsAnErrorOnEveryRank() {
    for error in errors({ fabric in
      let exchange = try ExpertExchange(
        fabric: fabric, layout: Self.layout, options: .init(capacityBytes: fabric.rank == 0 ? 6_000 : .max),
        smallBytes: 64)
      try Self.step(exchange, tokens: randomBatch(rows: 200, hidden: 8, seed: 1))
    }) {
      #expect(error.code == .outOfMemory)
      #expect(error.rank == 0)
    }
  }
}

@Suite struct FaultTests {
  static func step(_ fabric: any Fabric, options: ExchangeOptions = .init(), smallBytes: Int? = nil) throws {
    let exchange = try ExpertExchange(
      fabric: fabric, layout: BadInputTests.layout, options: options, smallBytes: smallBytes)
    try BadInputTests.step(exchange, tokens: randomBatch(rows: 12, hidden: 8, seed: UInt64(fabric.rank)))
  }

  @Test(arguments: StepPhase.making + StepPhase.transfers)
  func aDeadRankIsNamedInEveryPhase(phase: StepPhase) {
    let thrown = errors(faults: [.dead(1, atExchange: phase.exchange)]) {
      try Self.step($0, smallBytes: phase.smallBytes)
    }
    #expect(thrown.count == 3)
    for error in thrown {
      #expect(error.code == .rankLost)
      #expect(error.rank == 1)
    }
  }

  @Test(
    arguments: StepPhase.making + StepPhase.Part.allCases.map { .phase($0, of: .dispatch) }
      + [.phase(.move, of: .combine), .phase(.move, of: .combineBackward), .phase(.settle, of: .dispatchBackward)]
      + [.phase(.announce, of: .combine, moves: false), .phase(.settle, of: .combineBackward, moves: false)])
  func aSilentRankIsNamedWithinTheDeadline(phase: StepPhase) {
    let thrown = errors(deadline: .milliseconds(500), faults: [.silent(2, fromExchange: phase.exchange)]) {
      try Self.step($0, smallBytes: phase.smallBytes)
    }
    #expect(thrown.count == 3)
    for error in thrown {
      #expect(error.code == .deadlineExceeded || error.code == .rankLost)
      #expect(error.rank == 2)
    }
  }

  @Test(arguments: StepPhase.each(.move), [0, 9, 33, 63, 64, 100])
  func aFlippedByteInAFrameIsTheSameErrorOnEveryRank(phase: StepPhase, offset: Int) {
    Self.expectCorrupt(.flippedByte(from: 0, to: 1, exchange: phase.exchange, offset: offset), phase)
  }

  @Test(arguments: StepPhase.each(.announce, moves: false), [0, 9, 33, 63, 64, 100])
  func aFlippedByteBehindAnAnnouncementIsTheSameErrorOnEveryRank(phase: StepPhase, offset: Int) {
    Self.expectCorrupt(
      .flippedByte(from: 0, to: 1, exchange: phase.exchange, offset: Self.recordBytes + offset), phase)
  }

  private static func expectCorrupt(_ fault: Fault, _ phase: StepPhase) {
    let thrown = errors(faults: [fault]) { try Self.step($0, smallBytes: phase.smallBytes) }
    #expect(thrown.count == 3)
    for error in thrown {
      #expect(error.code == .corruptFrame || error.code == .truncatedFrame)
      #expect(error.rank == 0)
      #expect(error == thrown[0])
    }
  }

  /// Of a sealed announcement: fixed words, two row counts, the frame's header; twice, with a checksum each.
  static let recordBytes = 2 * (4 * (13 + 2) + 64 + 8)

  @Test(arguments: 0..<recordBytes)
  func aFlippedByteInAnAnnouncementChangesNothing(offset: Int) throws {
    let announce = StepPhase.phase(.announce, of: .dispatch, moves: false).exchange
    try SimulatedCluster(
      ranks: 3, faults: [.flippedByte(from: 2, to: 0, exchange: announce, offset: offset)]
    ).run { try Self.step($0) }
  }

  /// Both copies: the receiver cannot know what its sender wants, and the job ends.
  @Test(arguments: [0, 4, 30, 100])
  func anAnnouncementDamagedBeyondRepairEndsTheJob(offset: Int) {
    let announce = StepPhase.phase(.announce, of: .dispatch, moves: false).exchange
    let thrown = errors(
      faults: [0, Self.recordBytes / 2].map {
        .flippedByte(from: 2, to: 0, exchange: announce, offset: offset + $0)
      }
    ) { try Self.step($0) }
    #expect(thrown.count == 3)
    #expect(thrown.count { $0.code == .corruptFrame && $0.rank == 2 && !$0.isAgreed } == 1)
    #expect(thrown.count { $0.code == .rankLost && $0.rank == 0 } == 2)
  }
}
