import CrosspointCompression
import CrosspointCore
import CrosspointFabric
import CrosspointRouting
import CrosspointTestSupport
import CrosspointTokens
import Testing

@testable import CrosspointExchange

@Suite struct MixedPrecisionTests {
  static let hidden = 64
  static let wire = ExchangeOptions.Wire(try! .mixed(low: 1, high: 8))

  /// What arrives at rank 1 of rank 0's tokens, all routed to its only expert there with these weights (two choices a
  /// token: the other one stays at home).
  private func arrived(_ tokens: [Float], weights: [Float], _ options: ExchangeOptions) throws -> [[Float]] {
    try SimulatedCluster(ranks: 2).run { fabric in
      let exchange = try ExpertExchange(
        fabric: fabric, layout: ExpertLayout(experts: 2, hidden: Self.hidden), options: options)
      let count = fabric.rank == 0 ? weights.count : 0
      let routing = try Routing(
        topkIndices: (0..<count).flatMap { _ in [Int32(0), 1] },
        topkWeights: weights.prefix(count).flatMap { [1 - $0, $0] }, topK: 2, experts: 2)
      let batch = try TokenBatch(Array(tokens.prefix(count * Self.hidden)), hidden: Self.hidden)
      let handle = try exchange.dispatch(batch, routing)
      return handle.rows.array
    }
  }

  private func error(_ row: Int, _ y: [Float], _ x: [Float]) -> Double {
    let range = row * Self.hidden..<(row + 1) * Self.hidden
    return relativeError(Array(y[range]), Array(x[range]))
  }

  @Test func tokensOfLargeWeightArriveInTheHigherPrecision() throws {
    let x = randomFloats(12 * Self.hidden, seed: 60)
    let weights: [Float] = [0.1, 0.9, 0.2, 0.3, 0.15, 0.8, 0.25, 0.35, 0.05, 0.4, 0.85, 0.45]
    let rows = try arrived(x, weights: weights, ExchangeOptions(wire: Self.wire))[1]
    for row in 0..<12 {
      let isImportant = [1, 5, 10].contains(row)
      #expect(isImportant ? error(row, rows, x) < 0.02 : error(row, rows, x) > 0.3, "row \(row)")
    }
  }

  /// Four kinds of tokens, each a cluster: the one of largest weight in sum, not that of the heaviest token or the most.
  @Test func clustersWeighWhatTheirMembersWeighTogether() throws {
    let kinds = randomFloats(4 * Self.hidden, seed: 61)
    let members = [(0, 0.9), (1, 0.05), (1, 0.05), (1, 0.05), (2, 0.5), (2, 0.6), (3, 0.3)] as [(Int, Float)]
    let tokens = members.flatMap { kinds[$0.0 * Self.hidden..<($0.0 + 1) * Self.hidden] }
    let options = ExchangeOptions(compression: .crossPolytope(.init(functions: 4, width: 16)), wire: Self.wire)
    let rows = try arrived(tokens, weights: members.map(\.1), options)[1]
    #expect(rows.count == 4 * Self.hidden)
    for row in 0..<4 {
      #expect(row == 2 ? error(row, rows, kinds) < 0.02 : error(row, rows, kinds) > 0.3, "row \(row)")
    }
  }

  @Test func aWarmExchangeLeasesNoNewMemory() throws {
    for compression in [ExchangeOptions.Compression.off, .crossPolytope()] {
      try SimulatedCluster(ranks: 3).run { fabric in
        let exchange = try ExpertExchange(
          fabric: fabric, layout: ExpertLayout(experts: 4, hidden: 32),
          options: .init(
            compression: compression, wire: Self.wire))
        try StatisticsTests.steps(exchange, rank: fabric.rank, count: 3)
        let warm = exchange.pool.allocations
        try StatisticsTests.steps(exchange, rank: fabric.rank, count: 5)
        #expect(exchange.pool.allocations == warm)
      }
    }
  }
}
