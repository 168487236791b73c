import CrosspointCore
import CrosspointFabric
import CrosspointRouting
import CrosspointTestSupport
import CrosspointTokens
import Foundation
import Testing

@testable import CrosspointExchange

@Suite struct StatisticsTests {
  static func steps(
    _ exchange: ExpertExchange, rank: Int, rows: Int = 64, hidden: Int = 32, count: Int = 1
  ) throws {
    for _ in 0..<count {
      _ = try trainingStep(
        exchange, tokens: clusteredBatch(rows: rows, hidden: hidden, noise: 0.01, seed: UInt64(rank)),
        routing: randomRouting(tokens: rows, topK: 1, experts: 4, notSent: 0, seed: UInt64(rank)),
        dy: randomBatch(rows: rows, hidden: hidden, seed: 1))
    }
  }

  @Test func alikeTokensTravelAsOne() throws {
    let statistics = try SimulatedCluster(ranks: 2).run { fabric in
      let exchange = try ExpertExchange(
        fabric: fabric, layout: ExpertLayout(experts: 4, hidden: 32),
        options: .init(compression: .crossPolytope(.init(functions: 4, width: 8)), wire: .init(.bf16)))
      try Self.steps(exchange, rank: fabric.rank)
      return exchange.statistics
    }
    for layer in statistics {
      #expect(layer.rowsRouted == 64)
      #expect(layer.tokensPerExpert.reduce(0, +) == 64)
      // Five kinds of tokens, four experts: about twenty clusters.
      #expect(layer.rowsSent <= 32)
      #expect(layer.residualEnergy > 0 && layer.residualEnergy < 0.01)
    }
    let wire = statistics.reduce(0) { $0 + $1.wireBytes }
    let plain = statistics.reduce(0) { $0 + $1.uncompressedBytes }
    #expect(wire > 0 && wire < plain / 2)
  }

  @Test func losslessCountsItsRowsItsHeadersAndNothingElse() throws {
    let statistics = try SimulatedCluster(ranks: 2).run { fabric in
      let exchange = try ExpertExchange(fabric: fabric, layout: ExpertLayout(experts: 4, hidden: 256))
      try Self.steps(exchange, rank: fabric.rank, hidden: 256)
      return exchange.statistics
    }
    for kind in TransferKind.allCases {
      let wire = statistics.reduce(0) { $0 + $1[kind].wireBytes }
      let plain = statistics.reduce(0) { $0 + $1[kind].uncompressedBytes }
      let local = statistics.reduce(0) { $0 + $1[kind].localBytes }
      #expect(wire > plain && wire < plain + 1000)
      #expect(plain + local == 2 * 64 * 256 * 4)
    }
    #expect(statistics[0].rowsSentFraction == 1)
    #expect(statistics[0].residualEnergy == 0)
  }

  @Test(arguments: [ExchangeOptions.Compression.off, .crossPolytope()])
  func aWarmExchangeLeasesNoNewMemory(compression: ExchangeOptions.Compression) throws {
    try SimulatedCluster(ranks: 3).run { fabric in
      let exchange = try ExpertExchange(
        fabric: fabric, layout: ExpertLayout(experts: 4, hidden: 32), options: .init(compression: compression))
      try Self.steps(exchange, rank: fabric.rank, count: 3)
      let warm = exchange.pool.allocations
      try Self.steps(exchange, rank: fabric.rank, count: 5)
      #expect(exchange.pool.allocations == warm)
    }
  }

  @Test func aDispatchTakesAtMostThreeTimesItsPayload() throws {
    try SimulatedCluster(ranks: 4).run { fabric in
      let (rows, hidden) = (2048, 128)
      let exchange = try ExpertExchange(fabric: fabric, layout: ExpertLayout(experts: 4, hidden: hidden))
      let indices = (0..<(rows * 2)).map { Int32(($0 + $0 / 8) % 4) }
      let routing = try Routing(
        topkIndices: indices, topkWeights: Array(repeating: 0.5, count: rows * 2), topK: 2, experts: 4)
      _ = try exchange.dispatch(randomBatch(rows: rows, hidden: hidden, seed: 1), routing)
      let payload = rows * 2 * hidden * 4
      #expect(exchange.peakBufferBytes <= 3 * payload)
    }
  }

  @Test func theSlowRankIsTheOneThatWaitedLeast() throws {
    let slowest = try SimulatedCluster(ranks: 3).run { fabric in
      let agreement = Agreement(fabric: fabric)
      try agreement.settle(nil, waitSeconds: [0.2, 0.1, 0.3][fabric.rank], operation: "vote")
      return agreement.slowestRank
    }
    #expect(slowest == [1, 1, 1])
  }

  @Test func everyTransferHasOneSlowestRank() throws {
    let statistics = try SimulatedCluster(ranks: 3).run { fabric in
      let exchange = try ExpertExchange(fabric: fabric, layout: ExpertLayout(experts: 4, hidden: 32))
      try Self.steps(exchange, rank: fabric.rank, count: 2)
      return exchange.statistics
    }
    for mine in statistics {
      #expect(mine.timesSlowest.reduce(0, +) == 2 * TransferKind.allCases.count)
      #expect(mine.timesSlowest == statistics[0].timesSlowest, "ranks agree on who was slowest")
      #expect(mine.timesSlowest[mine.slowestRank] == mine.timesSlowest.max())
    }
  }
}
