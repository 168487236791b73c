import Crosspoint
import CrosspointBaseline
import CrosspointTestSupport
import Testing

/// The baselines must compute what they are compared with.
struct BaselineExchangeTests {
  /// The same bits, but for sums over ranks, which allgather adds in another order.
  @Test(arguments: [(1, 3, 1), (2, 4, 2), (3, 4, 3), (4, 3, 2)], [true, false])
  func aTrainingStepIsThatOfTheExchange(_ shape: (Int, Int, Int), isPlain: Bool) throws {
    let (ranks, experts, topK) = shape
    try SimulatedCluster(ranks: ranks).run { fabric in
      let layout = try ExpertLayout(experts: experts, hidden: 5)
      let exchange = try ExpertExchange(fabric: fabric, layout: layout)
      let (transport, rank) = (FabricTransport(fabric: fabric), fabric.rank)
      let baseline: any BaselineExchange =
        isPlain
        ? PlainExchange(transport: transport, layout: layout, rank: rank, rankCount: ranks)
        : AllgatherExchange(transport: transport, layout: layout, rank: rank, rankCount: ranks)
      // Rank 1 has no tokens.
      let count = rank == 1 ? 0 : 20 + rank
      let seed = UInt64(rank)
      let tokens = try randomBatch(rows: count, hidden: 5, seed: seed)
      let dy = try randomBatch(rows: count, hidden: 5, seed: seed + 100)
      let routing = try randomRouting(tokens: count, topK: topK, experts: experts, seed: seed)
      let expected = try trainingStep(exchange, tokens: tokens, routing: routing, dy: dy)

      let toys = ToyExperts()
      let first = exchange.localExperts.lowerBound
      let rows = try baseline.dispatch(tokens, routing)
      let output = try toys.forward(rows, rowsPerExpert: baseline.rowsPerExpert, firstExpert: first)
      let y = try baseline.combine(output)
      let dOutput = try baseline.combineBackward(dy, output: output)
      let dTokens = try baseline.dispatchBackward(
        try toys.backward(rows, dOutput, rowsPerExpert: baseline.rowsPerExpert, firstExpert: first))
      func near(_ found: [Float], _ expected: [Float], _ what: String) {
        let isSame =
          isPlain || found.count != expected.count
          ? firstBitDifference(found, expected) == nil : relativeError(found, expected) < 1e-6
        #expect(isSame, "\(what), rank \(rank)")
      }
      #expect(firstBitDifference(rows.array, expected.rowOrigins) == nil, "rows, rank \(rank)")
      near(y.array, expected.y, "y")
      near(baseline.topkWeightGradients, expected.weightGradients, "weights")
      near(dTokens.array, expected.tokenGradients, "dTokens")
      #expect(baseline.sentRows.reduce(0, +) == routing.tokensPerExpert.reduce(0, +))
      #expect(baseline.receivedRows.reduce(0, +) == rows.rows)
    }
  }
}
