import CrosspointCore
import CrosspointFabric
import CrosspointTestSupport
import Foundation
import Testing

@testable import CrosspointExchange

/// A memory where rows stand for clusters of tokens: dispatch then has no labels.
@Suite struct LearnedMemoryOfClustersTests {
  private static let allCopies: [ExchangeOptions.Copies] = [.perExpert, .perRank, .perNode(ranks: 2)]

  private static func exchange(
    _ fabric: any Fabric, _ copies: ExchangeOptions.Copies, bits: Double?
  ) throws -> ExpertExchange {
    let wire = ExchangeOptions.Wire(try bits.map { try .entropy(bits: $0) } ?? .fp32)
    return try LearnedMemoryTests.exchange(
      fabric,
      ExchangeOptions(
        compression: .crossPolytope(.init(functions: 2, rate: 0.5)), copies: copies, wire: wire,
        memory: bits == nil ? 0 : 4))
  }

  @Test(arguments: allCopies)
  func everyRankRemembersTheSame(copies: ExchangeOptions.Copies) throws {
    let states = try SimulatedCluster(ranks: 4).run { fabric in
      let exchange = try Self.exchange(fabric, copies, bits: 2)
      let states = try (0..<6).map { number in
        try LearnedMemoryTests.step(exchange, number)
        return exchange.state
      }
      #expect(exchange.statistics.rowsSentFraction < 0.7)
      return states
    }
    for state in states { #expect(state == states[0]) }
    for kind in TransferKind.allCases { #expect(states[0].last?.memory?[kind.rawValue] != nil) }
  }

  /// The same clusters, so the same function: what is remembered changes only how finely its rows arrive.
  @Test(arguments: allCopies)
  func finerCodesComeToTheExactGradients(copies: ExchangeOptions.Copies) throws {
    let errors = try SimulatedCluster(ranks: 4).run { fabric in
      let coded = try Self.exchange(fabric, copies, bits: 10)
      let exact = try Self.exchange(fabric, copies, bits: nil)
      return try (0..<4).map { number in
        let (coded, plain) = (try LearnedMemoryTests.step(coded, number), try LearnedMemoryTests.step(exact, number))
        return max(
          relativeError(coded.y, plain.y), relativeError(coded.tokenGradients, plain.tokenGradients),
          relativeError(coded.weightGradients, plain.weightGradients))
      }
    }
    for error in errors.joined() { #expect(error < 0.01) }
  }

  @Test(arguments: allCopies)
  func aSavedMemoryGoesOnBitForBit(copies: ExchangeOptions.Copies) throws {
    let same = try SimulatedCluster(ranks: 4).run { fabric in
      let straight = try Self.exchange(fabric, copies, bits: 2)
      for number in 0..<3 { try LearnedMemoryTests.step(straight, number) }
      let text = try JSONEncoder().encode(straight.state)
      let resumed = try Self.exchange(fabric, copies, bits: 2)
      try resumed.restore(JSONDecoder().decode(ExchangeState.self, from: text))
      return try (3..<8).map { number in
        try LearnedMemoryTests.step(straight, number).isBitwiseEqual(to: LearnedMemoryTests.step(resumed, number))
          && straight.state == resumed.state
      }
    }
    for same in same.joined() { #expect(same) }
  }
}
