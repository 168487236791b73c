import CrosspointCompression
import CrosspointCore
import CrosspointFabric
import CrosspointRouting
import CrosspointTestSupport
import CrosspointTokens
import Foundation
import Testing

@testable import CrosspointExchange

/// What exchanges learn while they train.
@Suite struct LearnedMemoryTests {
  static func options(
    _ interval: Int, bits: Double = 2, copies: ExchangeOptions.Copies = .perExpert,
    agreement: ExchangeOptions.Agreement = .immediate
  ) throws -> ExchangeOptions {
    ExchangeOptions(
      copies: copies, wire: .init(try .entropy(bits: bits)), agreement: agreement, memory: interval)
  }

  static func exchange(_ fabric: any Fabric, _ options: ExchangeOptions) throws -> ExpertExchange {
    try ExpertExchange(fabric: fabric, layout: MemoryTests.layout, options: options)
  }

  /// A step of training with labelled tokens; what came of it.
  @discardableResult
  static func step(_ exchange: ExpertExchange, _ number: Int, top: Int = 2) throws -> StepResult {
    let rank = exchange.fabric.rank
    let seed = UInt64(100 * number + rank)
    let (values, labels) = MemoryTests.rows(100, seed: seed)
    return try trainingStep(
      exchange, tokens: TokenBatch(values, hidden: MemoryTests.hidden),
      routing: randomRouting(tokens: 100, topK: top, experts: 4, seed: seed),
      dy: TokenBatch(gradients(seed: seed + 7), hidden: MemoryTests.hidden), labels: labels
    )
  }

  /// Of 100 tokens; they lie near two axes.
  private static func gradients(seed: UInt64) -> [Float] {
    let hidden = MemoryTests.hidden
    let (axes, amounts, noise) = (
      randomFloats(2 * hidden, seed: 2), randomFloats(200, seed: seed), randomFloats(100 * hidden, seed: seed + 1)
    )
    return noise.indices.map { index in
      let (row, column) = (index / hidden, index % hidden)
      return amounts[2 * row] * axes[column] + amounts[2 * row + 1] * axes[hidden + column] + 0.01 * noise[index]
    }
  }

  @Test(arguments: [1, 2, 4], ExchangeOptions.Copies.all(ranks: 4))
  func everyRankRemembersTheSame(ranks: Int, copies: ExchangeOptions.Copies) throws {
    // Two ranks are one node of two.
    if case .perNode = copies, ranks < 4 { return }
    let states = try SimulatedCluster(ranks: ranks).run { fabric in
      let exchange = try Self.exchange(fabric, Self.options(4, copies: copies))
      return try (0..<9).map { number in
        try Self.step(exchange, number)
        return exchange.state
      }
    }
    for state in states { #expect(state == states[0]) }
    let isAlone = ranks == 1
    for kind in TransferKind.allCases { #expect((states[0].last?.memory?[kind.rawValue] == nil) == isAlone) }
    // It learns at the steps 0, 1, 2, 4 and 8.
    let changes = (1..<9).filter { states[0][$0].memory != states[0][$0 - 1].memory }
    #expect(changes == (isAlone ? [] : [1, 2, 4, 8]))
  }

  @Test(arguments: ExchangeOptions.Copies.all(ranks: 4))
  func whatIsRememberedLessensTheErrorOfAllResults(copies: ExchangeOptions.Copies) throws {
    let results = try SimulatedCluster(ranks: 4).run { fabric in
      try [0, 4].map { memory in
        let exchange = try Self.exchange(fabric, Self.options(memory, copies: copies))
        let exact = try Self.exchange(fabric, ExchangeOptions(copies: copies))
        var errors: [[Double]] = []
        for number in 0..<7 {
          let (coded, plain) = (try Self.step(exchange, number), try Self.step(exact, number))
          errors.append([
            relativeError(coded.y, plain.y), relativeError(coded.tokenGradients, plain.tokenGradients),
            relativeError(coded.weightGradients, plain.weightGradients),
          ])
        }
        return errors.last!
      }
    }
    for errors in results {
      for (without, with) in zip(errors[0], errors[1]) { #expect(with < without, "\(errors)") }
    }
  }

  /// What both ends remember is no part of the function that is differentiated.
  @Test func finerCodesComeToTheExactGradients() throws {
    let errors = try SimulatedCluster(ranks: 4).run { fabric in
      let exchange = try Self.exchange(fabric, Self.options(2, bits: 10))
      let exact = try Self.exchange(fabric, ExchangeOptions())
      return try (0..<4).map { number in
        let (coded, plain) = (try Self.step(exchange, number), try Self.step(exact, number))
        return max(
          relativeError(coded.tokenGradients, plain.tokenGradients),
          relativeError(coded.weightGradients, plain.weightGradients))
      }
    }
    for error in errors.joined() { #expect(error < 0.01) }
  }

  /// Tests/CExamples/checks.c and python/tests/test_exchange.py have the same rows, and the same checksum.
  @Test func labelsGiveTheBitsThatTheyGiveInC() throws {
    let (hidden, tokens, experts) = (5, 64, 4)
    let results = try SimulatedCluster(ranks: 3).run { fabric in
      let rank = fabric.rank
      let exchange = try ExpertExchange(
        fabric: fabric, layout: ExpertLayout(experts: experts, hidden: hidden),
        options: ExchangeOptions(wire: .init(try .entropy(bits: 3)), memory: 16))
      let labels = (0..<tokens).map { Int32($0 % 4) }
      let x = (0..<tokens * hidden).map { index in
        let (t, j) = (index / hidden, index % hidden)
        return Float(3 * (t % 4) * (j % 3 - 1)) + Float((37 * t + 101 * j + 17 * rank) % 64) / 64
      }
      let routing = try Routing(
        topkIndices: (0..<2 * tokens).map { Int32(($0 / 2 + $0 % 2 + rank) % experts) },
        topkWeights: (0..<2 * tokens).map { $0 % 2 == 0 ? 0.75 : 0.25 }, topK: 2, experts: experts)
      let batch = try TokenBatch(x, hidden: hidden)
      var y: [Float] = []
      for _ in 0..<10 {
        let handle = try exchange.dispatch(batch, routing, labels: labels)
        y = try exchange.combine(handle.rows, handle).array
        _ = try exchange.dispatchBackward(exchange.combineBackward(batch, handle), handle)
      }
      return y.withUnsafeBytes { $0.reduce(0xcbf2_9ce4_8422_2325 as UInt64) { ($0 ^ UInt64($1)) &* 0x100_0000_01b3 } }
    }
    #expect(results[0] == 0x2646_b63c_5203_1232)
  }

  @Test(arguments: [1, 3], [ExchangeOptions.Agreement.immediate, .deferred])
  func aRankThatRemembersSomethingElseIsNamed(step: Int, agreement: ExchangeOptions.Agreement) throws {
    let thrown = errors { fabric in
      let exchange = try Self.exchange(fabric, Self.options(4, agreement: agreement))
      for number in 0..<step { try Self.step(exchange, number) }
      if fabric.rank == 1 { exchange.memory[.dispatch] = try MemoryTests.memory() }
      try Self.step(exchange, step)
      try exchange.settle()
    }
    #expect(thrown.count == 3)
    for error in thrown {
      #expect(error.code == .ranksDisagree && error.argument == "memory" && error == thrown[0], "\(error)")
      // Where it is time to learn, the rank; else whose frame was refused.
      if step == 1 { #expect(error.rank == 1) }
    }
  }

  @Test(arguments: [2, 4])
  func aSavedMemoryGoesOnBitForBit(ranks: Int) throws {
    let pairs = try SimulatedCluster(ranks: ranks).run { fabric in
      let straight = try Self.exchange(fabric, Self.options(4))
      for number in 0..<3 { try Self.step(straight, number) }
      let text = try JSONEncoder().encode(straight.state)
      let resumed = try Self.exchange(fabric, Self.options(4))
      try resumed.restore(JSONDecoder().decode(ExchangeState.self, from: text))
      return try (3..<10).map { number in
        let same = try Self.step(straight, number).isBitwiseEqual(to: Self.step(resumed, number))
        return same && straight.state == resumed.state && straight.statistics.wireBytes > resumed.statistics.wireBytes
      }
    }
    for same in pairs.joined() { #expect(same) }
  }

  @Test(arguments: [false, true])
  func transfersUnderWayAtOnceLearnTheSameOnEveryRank(reversed: Bool) throws {
    let states = try SimulatedCluster(ranks: 4).run { fabric in
      let exchange = try Self.exchange(fabric, Self.options(2, bits: 8, copies: .perRank))
      let exact = try Self.exchange(fabric, ExchangeOptions(copies: .perRank))
      for number in 0..<4 {
        let batches = try (0..<3).map {
          let seed = UInt64(100 * number + 10 * $0 + fabric.rank)
          return try MicroBatch(tokens: 60, hidden: MemoryTests.hidden, topK: 2, experts: 4, seed: seed)
        }
        let coded = try overlappedSteps([exchange], batches, reversed: reversed)
        for (coded, exact) in zip(coded, try overlappedSteps([exact], batches)) {
          #expect(relativeError(coded.y, exact.y) < 0.02)
        }
      }
      return exchange.state
    }
    for state in states { #expect(state == states[0] && state.memory?[0] != nil) }
  }

  @Test func anEvaluationLeavesNoTrace() throws {
    let same = try SimulatedCluster(ranks: 2).run { fabric in
      let exchange = try Self.exchange(fabric, Self.options(2))
      for number in 0..<3 { try Self.step(exchange, number) }
      let (state, result) = (exchange.state, MemoryTests.rows(10, seed: 3))
      exchange.adapts = false
      let handle = try exchange.dispatch(
        TokenBatch(result.values, hidden: MemoryTests.hidden),
        randomRouting(tokens: 10, topK: 1, experts: 4, seed: 1), labels: result.labels)
      _ = try exchange.combine(handle.rows, handle)
      return exchange.state == state
    }
    for same in same { #expect(same) }
  }

  @Test func damagedStatesAreRefused() throws {
    let thrown = errors(ranks: 2) { fabric in
      let exchange = try Self.exchange(fabric, Self.options(4))
      try Self.step(exchange, 0)
      var state = exchange.state
      let saved = try #require(state.memory?[0])
      for bytes in ["", "0", "zz", String(saved.bytes.dropLast(2))] {
        state.memory?[0] = ExchangeMemory.Saved(bytes: bytes, bytesPerStep: 1)
        #expect(throws: CrosspointError.self) { try exchange.restore(state) }
      }
      state.memory = nil
      try exchange.restore(state)
    }
    for error in thrown { #expect(error.code == .checkpointMismatch && error.argument == "memory") }
  }

  @Test(arguments: [(-1, "entropy:2"), (64, "rotated:4")])
  func aMemoryThatNothingMakesUseOfIsRefused(interval: Int, wire: String) throws {
    let thrown = errors { fabric in
      _ = try Self.exchange(fabric, ExchangeOptions(wire: .init(WireFormat(named: wire)), memory: interval))
    }
    #expect(thrown.count == 3)
    for error in thrown { #expect(error.code == .invalidArgument && error.argument == "memory") }
  }
}
