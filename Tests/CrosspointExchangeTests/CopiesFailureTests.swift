import CrosspointCompression
import CrosspointCore
import CrosspointFabric
import CrosspointRouting
import CrosspointTestSupport
import CrosspointTokens
import Testing

@testable import CrosspointExchange

/// With one copy per rank, too, what goes wrong on one rank is the same error on all.
@Suite struct CopiesFailureTests {
  /// Bytes of the rows that rank 1 sends to rank 0 in ``FaultTests/step(_:options:)``, and of what travels beside them.
  private static func dispatched(_ wire: WireFormat) throws -> (rows: Int, beside: Int) {
    let routing = try randomRouting(tokens: 12, topK: 2, experts: 4, notSent: 0, seed: 1)
    let rows = (0..<12).count { token in routing.topkIndices[2 * token..<2 * token + 2].contains { $0 < 2 } }
    let pairs = routing.topkIndices.count { $0 < 2 }
    #expect(rows < pairs, "the case must have tokens with both experts on the rank")
    return wire == .bf16 ? (rows * 16, rows + pairs * 2) : (rows * 32, rows + pairs * 4)
  }

  /// Every place of the block beside the rows: the marks of each row, then the shares.
  @Test(arguments: [WireFormat.fp32, .bf16])
  func aFlippedByteBesideDispatchedRowsIsTheSameErrorOnEveryRank(wire: WireFormat) throws {
    let (rows, beside) = try Self.dispatched(wire)
    for offset in rows..<rows + beside {
      Self.expectCorrupt(wire, from: 1, to: 0, .dispatch, offset: offset)
    }
  }

  /// On the way back rank 0 sends as many rows as it got, and the gradients of the shares.
  @Test(arguments: [WireFormat.fp32, .bf16])
  func aFlippedByteBesideReturningGradientsIsTheSameErrorOnEveryRank(wire: WireFormat) throws {
    let (rows, beside) = try Self.dispatched(wire)
    let marks = rows / (wire == .bf16 ? 16 : 32)
    for offset in rows..<rows + beside - marks {
      Self.expectCorrupt(wire, from: 0, to: 1, .dispatchBackward, offset: offset)
    }
  }

  private static func expectCorrupt(
    _ wire: WireFormat, from sender: Int, to receiver: Int, _ kind: TransferKind, offset: Int
  ) {
    let move = StepPhase.phase(.move, of: kind).exchange
    let fault = Fault.flippedByte(from: sender, to: receiver, exchange: move, offset: offset)
    let thrown = errors(faults: [fault]) {
      try FaultTests.step($0, options: .init(copies: .perRank, wire: .init(wire)), smallBytes: 0)
    }
    #expect(thrown.count == 3)
    for error in thrown {
      #expect(error.code == .corruptFrame && error.argument == "metadata")
      #expect(error.rank == sender && error.operation == "\(kind)")
      #expect(error == thrown[0])
    }
  }

  /// A record has one group, since all rows are its receiver's.
  @Test(arguments: 0..<2 * (4 * (13 + 1) + 60 + 8))
  func aFlippedByteInAnAnnouncementChangesNothing(offset: Int) throws {
    let announce = StepPhase.phase(.announce, of: .dispatch, moves: false).exchange
    try SimulatedCluster(
      ranks: 3, faults: [.flippedByte(from: 2, to: 0, exchange: announce, offset: offset)]
    ).run { try FaultTests.step($0, options: .init(copies: .perRank)) }
  }

  /// The gradients of the router's weights are made of what stays until the vote.
  @Test(arguments: [ExchangeOptions.Copies.perRank, .perNode(ranks: 2)], [nil, 0])
  func aDispatchBackwardThatFailedIsMadeAgain(copies: ExchangeOptions.Copies, smallBytes: Int?) throws {
    try SimulatedCluster(ranks: 4).run { fabric in
      let exchange = try ExpertExchange(
        fabric: fabric, layout: ExpertLayout(experts: 8, hidden: 8), options: .init(copies: copies),
        smallBytes: smallBytes)
      let seed = UInt64(fabric.rank)
      func weightGradients(failing: Bool) throws -> [Float] {
        let handle = try exchange.dispatch(
          randomBatch(rows: 9, hidden: 8, seed: seed), randomRouting(tokens: 9, topK: 4, experts: 8, seed: seed))
        _ = try exchange.combine(randomBatch(rows: handle.rows.rows, hidden: 8, seed: seed + 1), handle)
        let gradients = try exchange.combineBackward(randomBatch(rows: 9, hidden: 8, seed: seed + 2), handle)
        if failing {
          let error = #expect(throws: CrosspointError.self) {
            try exchange.dispatchBackward(gradients, handle) { () throws(CrosspointError) in
              if fabric.rank == 1 { throw CrosspointError(.outOfMemory, operation: "work", argument: "rows", "none") }
              return false
            }
          }
          #expect(error?.operation == "work" && error?.rank == 1)
        }
        _ = try exchange.dispatchBackward(gradients, handle)
        return handle.topkWeightGradients
      }
      let plain = try weightGradients(failing: false)
      #expect(plain.contains { $0 != 0 })
      #expect(try firstBitDifference(weightGradients(failing: true), plain) == nil)
    }
  }

  /// Experts 8 to 15 are on rank 1, whose memory holds the rows that come, but not eight copies of each.
  @Test func memoryThatIsTooSmallForTheCopiesOfOneRankIsTheSameErrorOnBoth() {
    let (tokens, hidden) = (50, 256)
    let thrown = errors(ranks: 2) { fabric in
      let exchange = try ExpertExchange(
        fabric: fabric, layout: ExpertLayout(experts: 16, hidden: hidden),
        options: .init(copies: .perRank, capacityBytes: fabric.rank == 1 ? 800_000 : .max), smallBytes: 0)
      func step(experts: Range<Int32>) throws {
        let routing = try Routing(
          topkIndices: (0..<tokens).flatMap { _ in experts },
          topkWeights: Array(repeating: 0.125, count: tokens * experts.count), topK: experts.count, experts: 16)
        _ = try trainingStep(
          exchange, tokens: randomBatch(rows: tokens, hidden: hidden, seed: 1), routing: routing,
          dy: randomBatch(rows: tokens, hidden: hidden, seed: 2))
      }
      do { try step(experts: 8..<16) } catch {
        // It was agreed on: nothing is lost, and smaller steps go on.
        try step(experts: 8..<9)
        throw error
      }
    }
    #expect(thrown.count == 2)
    for error in thrown {
      #expect(error.code == .outOfMemory && error.rank == 1)
      #expect(error.message.contains("\(2 * tokens * 8 * hidden * 4) bytes wanted"), "\(error.message)")
      #expect(error == thrown[0])
    }
  }

  /// What was to travel beside the rows of a dispatch that another rank's input stopped does not travel later.
  @Test func aFailedDispatchLeavesNothingForTheNextTransfer() throws {
    func combine(failing: Bool) throws -> [(y: [Float], bytes: Int)] {
      try SimulatedCluster(ranks: 2).run { fabric in
        let exchange = try ExpertExchange(
          fabric: fabric, layout: BadInputTests.layout, options: .init(copies: .perRank))
        let tokens = try randomBatch(rows: 6, hidden: 8, seed: UInt64(fabric.rank))
        let routing = try randomRouting(tokens: 6, topK: 2, experts: 4, seed: 1)
        let handle = try exchange.dispatch(tokens, routing)
        if failing {
          let bad = try randomBatch(rows: 6, hidden: 8, seed: 2)
          if fabric.rank == 1 { bad.elements[0] = .nan }
          #expect(throws: CrosspointError.self) { _ = try exchange.dispatch(bad, routing) }
        }
        return (try exchange.combine(handle.rows, handle).array, exchange.statistics[.combine].wireBytes)
      }
    }
    for (failed, smooth) in zip(try combine(failing: true), try combine(failing: false)) {
      #expect(firstBitDifference(failed.y, smooth.y) == nil)
      #expect(failed.bytes == smooth.bytes)
    }
  }
}
