import CrosspointCore
import CrosspointFabric
import CrosspointRouting
import CrosspointTestSupport
import CrosspointTokens
import Foundation
import Testing

@testable import CrosspointExchange

/// With shared memory, too, what goes wrong on one rank is the same error on all, and nobody hangs.
@Suite struct NodeFaultTests {
  static func step(
    _ fabric: any Fabric, _ options: ExchangeOptions = .init(), smallBytes: Int? = nil, bad: TransferKind? = nil
  ) throws {
    let exchange = try ExpertExchange(
      fabric: fabric, layout: BadInputTests.layout, options: options, smallBytes: smallBytes)
    try step(exchange, fabric, bad: fabric.rank == 1 ? bad : nil)
  }

  /// A step in the handle's memory; what one transfer is given holds a NaN in its row 3.
  static func step(_ exchange: ExpertExchange, _ fabric: any Fabric, bad: TransferKind?) throws {
    let routing = try randomRouting(tokens: 12, topK: 2, experts: 4, notSent: 0, seed: 1)
    func batch(_ seed: UInt64, _ kind: TransferKind) throws -> TokenBatch {
      let batch = try randomBatch(rows: 12, hidden: 8, seed: seed + UInt64(fabric.rank))
      if bad == kind { batch.row(3)[5] = .nan }
      return batch
    }
    func fill(_ rows: borrowing TokenBatch, _ kind: TransferKind) {
      for index in rows.elements.indices { rows.elements[index] = Float(index) }
      if bad == kind { rows.row(3)[5] = .nan }
    }
    let handle = try exchange.dispatch(batch(1, .dispatch), routing)
    fill(try handle.outputs(), .combine)
    _ = try exchange.combine(handle)
    _ = try exchange.combineBackward(batch(2, .combineBackward), handle)
    fill(try handle.rowGradients(), .dispatchBackward)
    _ = try exchange.dispatchBackward(handle)
  }

  struct Phase: Sendable {
    let exchange: Int
    let ranksPerNode: Int
    let smallBytes: Int?
  }

  /// Every exchange of init and a step. Where all ranks are one node, or bodies are small, no transfer has one for bodies.
  static let phases: [Phase] = {
    let steps: [(ranksPerNode: Int, smallBytes: Int?, exchanges: Int)] = [
      (2, nil, 9), (3, nil, 9), (2, 0, 13), (3, 0, 9),
    ]
    return steps.flatMap { step in
      (0..<3 + step.exchanges).map {
        Phase(exchange: $0, ranksPerNode: step.ranksPerNode, smallBytes: step.smallBytes)
      }
    }
  }()

  @Test(arguments: phases)
  func aDeadRankIsNamedInEveryPhase(phase: Phase) {
    let thrown = errors(ranksPerNode: phase.ranksPerNode, faults: [.dead(1, atExchange: phase.exchange)]) {
      try Self.step($0, smallBytes: phase.smallBytes)
    }
    #expect(thrown.count == 3)
    for error in thrown { #expect(error.code == .rankLost && error.rank == 1) }
  }

  @Test(arguments: phases)
  func aSilentRankIsNamedWithinTheDeadline(phase: Phase) {
    let thrown = errors(
      ranksPerNode: phase.ranksPerNode, deadline: .milliseconds(500),
      faults: [.silent(2, fromExchange: phase.exchange)]
    ) { try Self.step($0, smallBytes: phase.smallBytes) }
    #expect(thrown.count == 3)
    for error in thrown {
      #expect(error.code == .deadlineExceeded || error.code == .rankLost)
      #expect(error.rank == 2)
    }
  }

  @Test(arguments: TransferKind.allCases, [(2, nil), (2, 0), (3, nil), (3, 0)])
  func valuesThatAreNotFiniteAreNamedAndTheExchangeGoesOn(
    kind: TransferKind, _ path: (ranksPerNode: Int, smallBytes: Int?)
  ) throws {
    for copies in ExchangeOptions.Copies.all(ranks: 3) {
      let thrown = errors(ranksPerNode: path.ranksPerNode) { fabric in
        let exchange = try ExpertExchange(
          fabric: fabric, layout: BadInputTests.layout, options: .init(copies: copies), smallBytes: path.smallBytes)
        do { try Self.step(exchange, fabric, bad: fabric.rank == 1 ? kind : nil) } catch {
          try Self.step(exchange, fabric, bad: nil)
          throw error
        }
      }
      Self.expectBadRow(of: kind, in: thrown, ranks: 3)
    }
  }

  /// All ranks name rank 1 and the NaN that ``step(_:_:bad:)`` puts there.
  static func expectBadRow(of kind: TransferKind, in thrown: [CrosspointError], ranks: Int) {
    #expect(thrown.count == ranks)
    for error in thrown {
      #expect(error.code == .nonFinite && error.rank == 1 && error.operation == "\(kind)", "\(error)")
      #expect(error.message.contains("row 3, column 5 is nan"), "\(error)")
      #expect(error == thrown[0])
    }
  }

  /// Rank 0 changes a byte of its frames after it has encoded them.
  @Test(arguments: [0, 9, 33])
  func aByteThatChangesInASharedFrameIsTheSameErrorOnEveryRank(offset: Int) {
    let thrown = errors(ranksPerNode: 3) { base in
      var exchange: ExpertExchange?
      let fabric = WatchedFabric(base) { number in
        guard number == 3, base.rank == 0, let frames = exchange?.transfer.frames else { return }
        let byte = frames.base.assumingMemoryBound(to: UInt8.self) + offset
        byte.pointee = ~byte.pointee
      }
      exchange = try ExpertExchange(
        fabric: fabric, layout: BadInputTests.layout, options: .init(wire: .init(.bf16)))
      try Self.step(exchange!, fabric, bad: nil)
    }
    #expect(thrown.count == 3)
    for error in thrown {
      #expect(error.code == .corruptFrame && error.rank == 0 && error.operation == "decode", "\(error)")
      #expect(error == thrown[0])
    }
  }

  /// Rank 1 works past the deadline and then reads rows of ranks that have given up, and ended.
  @Test func aLateRankReadsMemoryThatIsStillThere() {
    let thrown = errors(ranksPerNode: 3, deadline: .milliseconds(500)) { fabric in
      let exchange = try ExpertExchange(fabric: fabric, layout: BadInputTests.layout)
      let tokens = try randomBatch(rows: 12, hidden: 8, seed: 1)
      let handle = try exchange.dispatch(
        tokens, randomRouting(tokens: 12, topK: 2, experts: 4, notSent: 0, seed: 1))
      _ = try exchange.combine(handle.rows, handle) {
        if fabric.rank == 1 { Thread.sleep(forTimeInterval: 1.5) }
        return false
      }
    }
    #expect(thrown.count == 3)
    for error in thrown where error.code == .deadlineExceeded { #expect(error.rank == 1) }
    #expect(thrown.contains { $0.code == .deadlineExceeded })
  }

  /// Memory ends on one rank, on either side.
  @Test(arguments: Array(stride(from: 3_000, to: 40_000, by: 3_000)))
  func memoryThatEndsIsTheSameErrorOnEveryRank(capacity: Int) {
    let results = SimulatedCluster(ranks: 3, ranksPerNode: 3, deadline: .seconds(5)).results { fabric in
      let exchange = try ExpertExchange(
        fabric: fabric, layout: BadInputTests.layout, options: .init(capacityBytes: fabric.rank == 1 ? capacity : .max),
        smallBytes: 64)
      let tokens = try randomBatch(rows: 60, hidden: 8, seed: UInt64(fabric.rank))
      let routing = try randomRouting(tokens: 60, topK: 2, experts: 4, notSent: 0, seed: 1)
      _ = try trainingStep(exchange, tokens: tokens, routing: routing, dy: tokens)
    }
    let thrown = results.compactMap { result in
      if case .failure(let error) = result { error as? CrosspointError } else { nil }
    }
    // The smallest holds no step at all.
    #expect(thrown.count == 3 || (thrown.isEmpty && capacity > 3_000))
    for error in thrown { #expect(error.code == .outOfMemory && error.rank == 1 && error == thrown[0]) }
  }
}
