import CrosspointCompression
import CrosspointFabric
import CrosspointRouting
import CrosspointTestSupport
import CrosspointTokens
import Testing

@testable import CrosspointExchange

/// Rows coded as finely as they weigh: on their way to the experts, and home.
@Suite struct WeightedRowsTests {
  private static let tokens = 200

  /// The third of some steps, whose tokens have one choice of much weight and one of little.
  private static func step(
    _ fabric: any Fabric, _ text: String, copies: ExchangeOptions.Copies, memory: Int
  ) throws -> StepResult {
    let exchange = try LearnedMemoryTests.exchange(
      fabric, ExchangeOptions(copies: copies, wire: .init(WireFormat(named: text)), memory: memory))
    return try (0..<3).map { number in
      let seed = UInt64(100 * number + fabric.rank)
      let (values, labels) = MemoryTests.rows(tokens, seed: seed)
      let chosen = try randomRouting(tokens: tokens, topK: 2, experts: 4, notSent: 0, seed: seed).topkIndices
      let routing = try Routing(
        topkIndices: chosen, topkWeights: chosen.indices.map { $0.isMultiple(of: 2) ? 0.95 : 0.05 }, topK: 2, experts: 4
      )
      return try trainingStep(
        exchange, tokens: TokenBatch(values, hidden: MemoryTests.hidden), routing: routing,
        dy: randomBatch(rows: tokens, hidden: MemoryTests.hidden, seed: seed + 7), labels: labels)
    }[2]
  }

  @Test(arguments: ExchangeOptions.Copies.all(ranks: 4), [0, 4])
  func resultsHaveLessErrorAtTheSameBits(copies: ExchangeOptions.Copies, memory: Int) throws {
    let errors = try SimulatedCluster(ranks: 4).run { fabric in
      let exact = try Self.step(fabric, "fp32", copies: copies, memory: 0)
      return try ["weighted:3", "entropy:3"].map {
        relativeError(try Self.step(fabric, $0, copies: copies, memory: memory).y, exact.y)
      }
    }
    for errors in errors { #expect(errors[0] < 0.9 * errors[1], "\(errors)") }
  }

  @Test(arguments: ExchangeOptions.Copies.all(ranks: 4))
  func finerCodesComeToTheExactGradients(copies: ExchangeOptions.Copies) throws {
    let errors = try SimulatedCluster(ranks: 4).run { fabric in
      let exact = try Self.step(fabric, "fp32", copies: copies, memory: 0)
      let coded = try Self.step(fabric, "weighted:10", copies: copies, memory: 4)
      return [
        relativeError(coded.y, exact.y), relativeError(coded.tokenGradients, exact.tokenGradients),
        relativeError(coded.weightGradients, exact.weightGradients),
      ]
    }
    for error in errors.joined() { #expect(error < 0.02) }
  }
}
