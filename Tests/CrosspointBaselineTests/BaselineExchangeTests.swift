import Crosspoint
import CrosspointBaseline
import CrosspointTestSupport
import Testing

/// The baseline must compute what it is compared with.
struct PlainExchangeTests {
  @Test(arguments: [(1, 3, 1), (2, 4, 2), (3, 4, 3), (4, 3, 2)])
  func aTrainingStepHasTheSameBitsAsTheExchange(ranks: Int, experts: Int, topK: Int) throws {
    try SimulatedCluster(ranks: ranks).run { fabric in
      let layout = try ExpertLayout(experts: experts, hidden: 5)
      let exchange = try ExpertExchange(fabric: fabric, layout: layout)
      let plain = PlainExchange(
        transport: FabricTransport(fabric: fabric), layout: layout, rank: fabric.rank, rankCount: ranks)
      // Rank 1 has no tokens.
      let count = fabric.rank == 1 ? 0 : 20 + fabric.rank
      let seed = UInt64(fabric.rank)
      let tokens = try randomBatch(rows: count, hidden: 5, seed: seed)
      let dy = try randomBatch(rows: count, hidden: 5, seed: seed + 100)
      let routing = try randomRouting(tokens: count, topK: topK, experts: experts, seed: seed)
      let expected = try trainingStep(exchange, tokens: tokens, routing: routing, dy: dy)

      let toys = ToyExperts()
      let first = exchange.localExperts.lowerBound
      let rows = try plain.dispatch(tokens, routing)
      let y = try plain.combine(try toys.forward(rows, rowsPerExpert: plain.rowsPerExpert, firstExpert: first))
      let dOutput = try plain.combineBackward(dy)
      let dTokens = try plain.dispatchBackward(
        try toys.backward(rows, dOutput, rowsPerExpert: plain.rowsPerExpert, firstExpert: first))
      #expect(firstBitDifference(rows.array, expected.rowOrigins) == nil, "rows, rank \(fabric.rank)")
      #expect(firstBitDifference(y.array, expected.y) == nil, "y, rank \(fabric.rank)")
      #expect(firstBitDifference(plain.topkWeightGradients, expected.weightGradients) == nil, "rank \(fabric.rank)")
      #expect(firstBitDifference(dTokens.array, expected.tokenGradients) == nil, "dTokens, rank \(fabric.rank)")
    }
  }
}
