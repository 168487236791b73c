import CrosspointCore
import CrosspointFabric
import CrosspointPolicy
import CrosspointTestSupport
import CrosspointTokens
import Foundation
import Testing

@testable import CrosspointExchange

/// A memory where a budget chooses clusters and formats, and changes its mind.
@Suite struct BudgetMemoryTests {
  private static let memory = 4

  /// Labelled tokens, by turns alike and random.
  private static func step(
    _ exchange: ExpertExchange, _ number: Int, of kinds: [PolicyData] = [.duplicates, .random]
  ) throws -> StepResult {
    let data = kinds[number % kinds.count]
    let rank = exchange.fabric.rank
    let tokens = try data.tokens(rank, step: number)
    return try trainingStep(
      exchange, tokens: tokens, routing: data.routing(rank, step: number, tokens: tokens.rows),
      dy: randomBatch(rows: tokens.rows, hidden: PolicyData.hidden, seed: UInt64(number)),
      labels: (0..<tokens.rows).map { Int32($0 % 5) })
  }

  private static func exchange(
    _ fabric: any Fabric, _ policy: ExchangeOptions.Policy, memory: Int = memory
  ) throws -> ExpertExchange {
    try ExpertExchange(
      fabric: fabric, layout: ExpertLayout(experts: PolicyData.experts, hidden: PolicyData.hidden),
      options: .init(compensation: .none, memory: memory, policy: policy))
  }

  @Test(arguments: [ExchangeOptions.Policy.budget(bytes: 0.1), .budget(relativeError: 0.1)])
  func everyRankChoosesAndRemembersTheSame(policy: ExchangeOptions.Policy) throws {
    let states = try SimulatedCluster(ranks: 4).run { fabric in
      let exchange = try Self.exchange(fabric, policy)
      return try (0..<10).map { number in
        _ = try Self.step(exchange, number)
        return exchange.state
      }
    }
    for state in states { #expect(state == states[0]) }
    for kind in TransferKind.allCases { #expect(states[0].last?.memory?[kind.rawValue] != nil) }
  }

  /// The first steps learn often: what that takes is saved again in those that follow.
  @Test func aByteBudgetHoldsWithWhatLearningTakes() throws {
    let all = try SimulatedCluster(ranks: 4).run { fabric in
      let exchange = try Self.exchange(fabric, .budget(bytes: 0.3), memory: 64)
      for number in 0..<24 { _ = try Self.step(exchange, number) }
      return exchange.statistics
    }
    for kind in TransferKind.allCases {
      let wire = all.reduce(0) { $0 + $1[kind].wireBytes }
      let bf16 = all.reduce(0) { $0 + $1[kind].uncompressedBytes } / 2
      #expect(Double(wire) <= 1.03 * 0.3 * Double(bf16), "\(kind): \(Double(wire) / Double(bf16))")
    }
  }

  /// Of rows that no cluster can stand for: members of one share a gradient.
  @Test func anErrorBudgetBoundsTheErrorOfGradients() throws {
    let errors = try SimulatedCluster(ranks: 4).run { fabric in
      let coded = try Self.exchange(fabric, .budget(relativeError: 0.02))
      let exact = try ExpertExchange(
        fabric: fabric, layout: ExpertLayout(experts: PolicyData.experts, hidden: PolicyData.hidden))
      return try (0..<6).map { number in
        let (coded, plain) = (
          try Self.step(coded, number, of: [.random]), try Self.step(exact, number, of: [.random])
        )
        return max(relativeError(coded.y, plain.y), relativeError(coded.tokenGradients, plain.tokenGradients))
      }
    }
    for error in errors.joined() { #expect(error < 0.1) }
  }

  @Test func aSavedStateGoesOnBitForBit() throws {
    let policy = ExchangeOptions.Policy.budget(bytes: 0.2)
    let same = try SimulatedCluster(ranks: 3).run { fabric in
      let straight = try Self.exchange(fabric, policy)
      for number in 0..<4 { _ = try Self.step(straight, number) }
      let text = try JSONEncoder().encode(straight.state)
      let resumed = try Self.exchange(fabric, policy)
      try resumed.restore(JSONDecoder().decode(ExchangeState.self, from: text))
      return try (4..<10).map { number in
        try Self.step(straight, number).isBitwiseEqual(to: Self.step(resumed, number))
          && straight.state == resumed.state
      }
    }
    for same in same.joined() { #expect(same) }
  }
}
