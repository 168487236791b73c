import CrosspointCore
import CrosspointFabric
import CrosspointRouting
import CrosspointTestSupport
import CrosspointTokens
import Testing

@testable import CrosspointExchange

/// Groups of rows large enough to travel as blocks of their own, from where they lie to where they belong.
@Suite struct InPlaceTests {
  static let hidden = 67
  static let tokens = 1800

  /// The tokens of a step in one batch, or in several of equal size.
  static func step(_ fabric: any Fabric, batches: Int = 1) throws -> StepResult {
    let experts = 5
    let exchange = try ExpertExchange(
      fabric: fabric, layout: ExpertLayout(experts: experts, hidden: hidden))
    let rank = UInt64(fabric.rank)
    let x = randomFloats(tokens * hidden, seed: rank)
    let dy = randomFloats(tokens * hidden, seed: rank + 9)
    let routing = try randomRouting(tokens: tokens, topK: 2, experts: experts, seed: rank + 5)
    let steps = try (0..<batches).map { batch in
      let rows = batch * tokens / batches..<(batch + 1) * tokens / batches
      let (values, slots) = (
        rows.lowerBound * hidden..<rows.upperBound * hidden, 2 * rows.lowerBound..<2 * rows.upperBound
      )
      return try trainingStep(
        exchange, tokens: TokenBatch(Array(x[values]), hidden: hidden),
        routing: Routing(
          topkIndices: Array(routing.topkIndices[slots]), topkWeights: Array(routing.topkWeights[slots]), topK: 2,
          experts: experts),
        dy: TokenBatch(Array(dy[values]), hidden: hidden))
    }
    var all = steps[0]
    all.y = steps.flatMap(\.y)
    all.tokenGradients = steps.flatMap(\.tokenGradients)
    all.weightGradients = steps.flatMap(\.weightGradients)
    return all
  }

  /// Groups of fewer tokens are staged and decoded: the same rows must come out.
  @Test(arguments: [2, 3])
  func rowsInPlaceAreTheRowsOfAFrame(ranks: Int) throws {
    let inPlace = try SimulatedCluster(ranks: ranks).run { try Self.step($0) }
    let staged = try SimulatedCluster(ranks: ranks).run { try Self.step($0, batches: 12) }
    for (one, other) in zip(inPlace, staged) {
      #expect(firstBitDifference(one.y, other.y) == nil)
      #expect(firstBitDifference(one.tokenGradients, other.tokenGradients) == nil)
      #expect(firstBitDifference(one.weightGradients, other.weightGradients) == nil)
    }
  }

  /// In memory: no body is staged, on either side.
  @Test func nothingIsStagedForAPlainCombine() throws {
    func peak(_ options: ExchangeOptions) throws -> Int {
      try SimulatedCluster(ranks: 2).run { fabric in
        let exchange = try ExpertExchange(
          fabric: fabric, layout: ExpertLayout(experts: 4, hidden: Self.hidden), options: options)
        let tokens = try randomBatch(rows: Self.tokens, hidden: Self.hidden, seed: 1)
        let routing = try randomRouting(tokens: Self.tokens, topK: 1, experts: 4, notSent: 0, seed: 2)
        let handle = try exchange.dispatch(tokens, routing)
        _ = try exchange.combine(handle.rows, handle)
        return exchange.peakBufferBytes
      }.max()!
    }
    let batch = Self.tokens * Self.hidden * 4
    // Rows, outputs and result; the frames of the dispatch are gone by then.
    #expect(try peak(.init()) < 4 * batch)
  }

  @Test(arguments: StepPhase.each(.move), [0, 70_000, 300_001])
  func aFlippedByteIsTheSameErrorOnEveryRank(phase: StepPhase, offset: Int) {
    let faults = [Fault.flippedByte(from: 0, to: 1, exchange: phase.exchange, offset: offset)]
    let results = SimulatedCluster(ranks: 2, deadline: .seconds(20), faults: faults).results { try Self.step($0) }
    for result in results {
      guard case .failure(let error) = result, let error = error as? CrosspointError else {
        Issue.record("a rank did not throw")
        continue
      }
      #expect(error.code == .corruptFrame)
      #expect(error.rank == 0)
      #expect(error.message.contains("bytes changed in transit"))
    }
  }

  /// Expert outputs that stay and outputs that travel are both looked at.
  @Test(arguments: [0, 1], [0, 1])
  func outputsThatAreNotFiniteAreNamed(rank: Int, half: Int) {
    let results = SimulatedCluster(ranks: 2, deadline: .seconds(20)).results { fabric in
      let exchange = try ExpertExchange(fabric: fabric, layout: ExpertLayout(experts: 2, hidden: Self.hidden))
      let tokens = try randomBatch(rows: Self.tokens, hidden: Self.hidden, seed: 1)
      let routing = try randomRouting(tokens: Self.tokens, topK: 2, experts: 2, notSent: 0, seed: 2)
      let handle = try exchange.dispatch(tokens, routing)
      // Rows of rank 0 come first; one expert per rank gets every token.
      let output = try TokenBatch(handle.rows.array, hidden: Self.hidden)
      if fabric.rank == rank { output.row(half * Self.tokens + 7)[5] = .nan }
      _ = try exchange.combine(output, handle)
    }
    for result in results {
      guard case .failure(let error) = result, let error = error as? CrosspointError else {
        Issue.record("a rank did not throw")
        continue
      }
      #expect(error.code == .nonFinite)
      #expect(error.rank == rank)
      #expect(error.argument == "output")
      #expect(error.message.contains("row \(half * Self.tokens + 7), column 5"))
    }
  }
}
