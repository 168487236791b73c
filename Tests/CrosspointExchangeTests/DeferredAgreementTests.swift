import CrosspointCompression
import CrosspointCore
import CrosspointFabric
import CrosspointRouting
import CrosspointTestSupport
import CrosspointTokens
import Testing

@testable import CrosspointExchange

/// The vote of a transfer is left to the next one, or to `settle()`.
@Suite struct DeferredAgreementTests {
  typealias Kind = TransferKind

  static let options = ExchangeOptions(agreement: .deferred)

  /// Transfers up to one of a step on one handle; of the last, what came.
  static func transfers(_ exchange: ExpertExchange, _ rank: Int, to last: Kind = .dispatchBackward) throws -> (
    handle: DispatchHandle, result: [Float]
  ) {
    let routing = try randomRouting(tokens: 12, topK: 2, experts: 4, notSent: 0, seed: 1)
    let handle = try exchange.dispatch(randomBatch(rows: 12, hidden: 8, seed: UInt64(rank)), routing)
    if last == .dispatch { return (handle, handle.rows.array) }
    let y = try exchange.combine(randomBatch(rows: handle.rows.rows, hidden: 8, seed: 3), handle)
    if last == .combine { return (handle, y.array) }
    let gradients = try exchange.combineBackward(randomBatch(rows: 12, hidden: 8, seed: 4), handle)
    if last == .combineBackward { return (handle, gradients.array) }
    return (handle, try exchange.dispatchBackward(gradients, handle).array)
  }

  /// The call after a transfer.
  static func next(_ exchange: ExpertExchange, _ handle: DispatchHandle, after kind: Kind) throws {
    switch kind {
    case .dispatch: _ = try exchange.combine(handle.rows, handle)
    case .combine: _ = try exchange.combineBackward(randomBatch(rows: 12, hidden: 8, seed: 4), handle)
    case .combineBackward: _ = try exchange.dispatchBackward(handle.rows, handle)
    case .dispatchBackward:
      _ = try exchange.dispatch(
        randomBatch(rows: 0, hidden: 8, seed: 1), Routing(topkIndices: [], topkWeights: [], topK: 2, experts: 4))
    }
  }

  /// Rounds of a step and of its end.
  @Test(arguments: [(1, nil, [1, 1, 1, 1, 1]), (1, 0, [3, 2, 2, 2, 1]), (3, nil, [3, 2, 2, 2, 0])])
  func aVoteLessIsTakenWhereNoMemoryIsShared(ranksPerNode: Int, smallBytes: Int?, expected: [Int]) throws {
    try SimulatedCluster(ranks: 3, ranksPerNode: ranksPerNode).run { base in
      let fabric = CountedFabric(base)
      let exchange = try ExpertExchange(
        fabric: fabric, layout: BadInputTests.layout, options: Self.options, smallBytes: smallBytes)
      var counts: [Int] = []
      for last in Kind.allCases {
        let before = fabric.sizes.count
        _ = try Self.transfers(exchange, fabric.rank, to: last)
        counts.append(fabric.sizes.count - before)
        let end = fabric.sizes.count
        try exchange.settle()
        if last == .dispatchBackward { counts.append(fabric.sizes.count - end) }
        try exchange.settle()
      }
      let steps = zip(counts.prefix(4), [0] + counts.prefix(3)).map { $0 - $1 } + [counts[4]]
      #expect(steps == expected)
    }
  }

  @Test(
    arguments: [WireFormat.fp32, .bf16, try .rotated(bits: 3)],
    [ExchangeOptions.Copies.perExpert, .perRank, .perNode(ranks: 2)])
  func noBitChanges(wire: WireFormat, copies: ExchangeOptions.Copies) throws {
    func steps(_ agreement: ExchangeOptions.Agreement, _ ranksPerNode: Int, _ smallBytes: Int?) throws -> [[StepResult]]
    {
      try SimulatedCluster(ranks: 4, ranksPerNode: ranksPerNode).run { fabric in
        let exchange = try ExpertExchange(
          fabric: fabric, layout: ExpertLayout(experts: 5, hidden: 24),
          options: .init(compression: .crossPolytope(), copies: copies, wire: .init(wire), agreement: agreement),
          smallBytes: smallBytes)
        return try (0..<3).map { step in
          let (seed, count) = (UInt64(10 * step + fabric.rank), 20 * (fabric.rank + step) % 50)
          return try trainingStep(
            exchange, tokens: clusteredBatch(rows: count, hidden: 24, seed: seed),
            routing: randomRouting(tokens: count, topK: 2, experts: 5, seed: seed),
            dy: randomBatch(rows: count, hidden: 24, seed: seed + 1), inPlace: step == 1)
        }
      }
    }
    let expected = try steps(.immediate, 1, nil)
    for (ranksPerNode, smallBytes) in [(1, nil), (1, 0), (2, 0), (2, 500), (4, 500), (4, nil)] {
      for (one, other) in zip(try steps(.deferred, ranksPerNode, smallBytes), expected) {
        for (a, b) in zip(one, other) { #expect(a.isBitwiseEqual(to: b)) }
      }
    }
  }

  /// What a transfer brought damaged to one rank is of no use there, and the next call throws it on all.
  @Test(arguments: Kind.allCases, [false, true])
  func damageIsThrownByTheNextCallOnEveryRank(kind: Kind, moves: Bool) throws {
    // Without votes a transfer of small bodies has one exchange; of large ones a dispatch has three and the others two.
    let before = StepPhase.making.count + (moves ? (kind == .dispatch ? 2 : 2 + 2 * kind.rawValue) : kind.rawValue)
    let fault = Fault.flippedByte(
      from: 0, to: 1, exchange: before, offset: moves ? 9 : FaultTests.recordBytes + 9)
    for settles in [false, true] {
      try SimulatedCluster(ranks: 3, deadline: .seconds(10), faults: [fault]).run { fabric in
        let exchange = try ExpertExchange(
          fabric: fabric, layout: BadInputTests.layout, options: Self.options, smallBytes: moves ? 0 : nil)
        let (handle, result) = try Self.transfers(exchange, fabric.rank, to: kind)
        if fabric.rank == 1 {
          #expect(kind == .dispatch ? result.isEmpty : result.allSatisfy { $0 == 0 })
        } else {
          #expect(result.contains { $0 != 0 })
        }
        let error = #expect(throws: CrosspointError.self) {
          if settles { try exchange.settle() } else { try Self.next(exchange, handle, after: kind) }
        }
        #expect(error?.code == .corruptFrame && error?.rank == 0 && error?.isAgreed == true, "\(error as Any)")
        if kind != .dispatchBackward {
          // Nothing more can be done with the handle, on any rank.
          let misuse = #expect(throws: CrosspointError.self) { try Self.next(exchange, handle, after: kind) }
          #expect(misuse?.code == .handleMisuse && misuse?.rank == 1 && misuse?.isAgreed == true, "\(misuse as Any)")
        }
        _ = try Self.transfers(exchange, fabric.rank)
        try exchange.settle()
      }
    }
  }

  /// A transfer of another exchange, or any vote: what comes first tells.
  @Test(arguments: [false, true])
  func whateverComesNextOnTheFabricTells(isVote: Bool) throws {
    // Two exchanges are made; then a dispatch and a combine announce.
    let fault = Fault.flippedByte(
      from: 0, to: 1, exchange: 2 * StepPhase.making.count + 1, offset: FaultTests.recordBytes + 9)
    try SimulatedCluster(ranks: 3, deadline: .seconds(10), faults: [fault]).run { fabric in
      let exchanges = try (0..<2).map { _ in
        try ExpertExchange(fabric: fabric, layout: BadInputTests.layout, options: Self.options)
      }
      _ = try Self.transfers(exchanges[0], fabric.rank, to: .combine)
      let error = #expect(throws: CrosspointError.self) {
        if isVote {
          try fabric.together(operation: "vote") {}
        } else {
          _ = try Self.transfers(exchanges[1], fabric.rank)
        }
      }
      #expect(error?.code == .corruptFrame && error?.rank == 0 && error?.isAgreed == true, "\(error as Any)")
      for exchange in exchanges { _ = try Self.transfers(exchange, fabric.rank) }
      try exchanges[1].settle()
    }
  }

  /// What is known before the announcements is thrown at once.
  @Test func badInputIsThrownByTheCallItself() throws {
    try SimulatedCluster(ranks: 3).run { fabric in
      let exchange = try ExpertExchange(fabric: fabric, layout: BadInputTests.layout, options: Self.options)
      let tokens = try randomBatch(rows: 12, hidden: 8, seed: 1)
      if fabric.rank == 2 { tokens.row(5)[1] = .nan }
      let routing = try randomRouting(tokens: 12, topK: 2, experts: 4, notSent: 0, seed: 1)
      let error = #expect(throws: CrosspointError.self) { _ = try exchange.dispatch(tokens, routing) }
      #expect(error?.code == .nonFinite && error?.rank == 2 && error?.isAgreed == true)
      try exchange.settle()
    }
  }

  @Test(arguments: Kind.allCases)
  func whatTheCallersWorkThrowsIsThrownByTheNextCall(kind: Kind) throws {
    try SimulatedCluster(ranks: 3).run { fabric in
      let exchange = try ExpertExchange(fabric: fabric, layout: BadInputTests.layout, options: Self.options)
      func step(failing: Bool) throws {
        _ = try trainingStep(
          exchange, tokens: randomBatch(rows: 5, hidden: 8, seed: 1),
          routing: randomRouting(tokens: 5, topK: 2, experts: 4, seed: 2), dy: randomBatch(rows: 5, hidden: 8, seed: 3)
        ) { here throws(CrosspointError) in
          if failing, here == kind, fabric.rank == 1 {
            throw CrosspointError(.outOfMemory, operation: "shared experts", argument: "rows", "no room for 9")
          }
          return false
        }
        try exchange.settle()
      }
      let error = #expect(throws: CrosspointError.self) { try step(failing: true) }
      #expect(error?.rank == 1 && error?.operation == "shared experts" && error?.isAgreed == true)
      try step(failing: false)
    }
  }

  /// In the transfer itself, or in one before of which it was to tell; dropped by all, or by one.
  @Test(arguments: [0, 1], [[0], [1], [0, 1, 2]])
  func whatWentWrongUntilATransferWasDroppedIsThrownByTheNextCall(earlier: Int, droppers: [Int]) throws {
    try SimulatedCluster(ranks: 3).run { fabric in
      let exchange = try ExpertExchange(fabric: fabric, layout: BadInputTests.layout, options: Self.options)
      let routing = try randomRouting(tokens: 5, topK: 2, experts: 4, seed: 2)
      let tokens = try randomBatch(rows: 5, hidden: 8, seed: 1)
      for _ in 0..<earlier {
        _ = try exchange.dispatch(tokens, routing) { () throws(CrosspointError) in
          if fabric.rank == 1 { throw CrosspointError(.outOfMemory, operation: "work", argument: "rows", "none") }
          return false
        }
      }
      if earlier == 0, fabric.rank == 1 { tokens.row(3)[1] = .nan }
      func dispatch() throws {
        let pending = try exchange.beginDispatch(tokens, routing)
        if !droppers.contains(fabric.rank) { _ = try pending.finish() }
      }
      if droppers.contains(fabric.rank) {
        try dispatch()
      } else {
        #expect(throws: CrosspointError.self) { try dispatch() }
      }
      let error = #expect(throws: CrosspointError.self) { try exchange.settle() }
      #expect(error?.code == (earlier == 0 ? .nonFinite : .outOfMemory) && error?.rank == 1)
      try exchange.settle()
      _ = try Self.transfers(exchange, fabric.rank)
      try exchange.settle()
    }
  }

  /// A rank that goes away is named in every round that is left.
  @Test(arguments: 0..<3 + 5, [false, true])
  func aLostRankIsNamed(exchange: Int, isSilent: Bool) {
    let fault = isSilent ? Fault.silent(2, fromExchange: exchange) : .dead(2, atExchange: exchange)
    let thrown = errors(deadline: isSilent ? .milliseconds(500) : .seconds(20), faults: [fault]) { fabric in
      let exchange = try ExpertExchange(fabric: fabric, layout: BadInputTests.layout, options: Self.options)
      _ = try Self.transfers(exchange, fabric.rank)
      try exchange.settle()
    }
    #expect(thrown.count == 3)
    for error in thrown {
      #expect(error.rank == 2 && (error.code == .rankLost || error.code == .deadlineExceeded), "\(error)")
    }
  }
}
