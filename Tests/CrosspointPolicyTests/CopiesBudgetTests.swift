import CrosspointCore
import CrosspointExchange
import CrosspointFabric
import CrosspointPolicy
import CrosspointRouting
import CrosspointTestSupport
import Testing

/// A budget with one copy per rank.
@Suite struct CopiesBudgetTests {
  /// Rows of tokens that go to other ranks, once each, in some steps of `data`.
  private static func rowsAway(_ data: PolicyData, rank: Int, ranks: Int, steps: Int) throws -> Int {
    let layout = try ExpertLayout(experts: PolicyData.experts, hidden: PolicyData.hidden)
    return try (0..<steps).reduce(0) { sum, step in
      let routing = try data.routing(rank, step: step, tokens: data.tokens(rank, step: step).rows)
      var destinations = Routing.none
      destinations.regroup(routing, groups: ranks) { layout.rank(of: $0, rankCount: ranks) }
      return sum + destinations.tokensPerExpert.reduce(0, +) - destinations.tokensPerExpert[rank]
    }
  }

  /// The budget is a fraction of one row per token and rank, and what travels beside the rows is charged to it.
  @Test(arguments: [PolicyData.random, .skewed, .duplicates, .emptyRanks], [0.2, 0.4])
  func aByteBudgetHoldsAndEveryRankChoosesTheSame(data: PolicyData, fraction: Double) throws {
    let (ranks, steps) = (3, 16)
    let all = try SimulatedCluster(ranks: ranks).run { fabric in
      let exchange = try ExpertExchange(
        fabric: fabric, layout: ExpertLayout(experts: PolicyData.experts, hidden: PolicyData.hidden),
        options: .init(copies: .perRank, policy: .budget(bytes: fraction)))
      _ = try data.train(exchange, rank: fabric.rank, steps: 0..<steps)
      return (state: exchange.state, statistics: exchange.statistics)
    }
    let rows = try (0..<ranks).reduce(0) { try $0 + Self.rowsAway(data, rank: $1, ranks: ranks, steps: steps) }
    for kind in TransferKind.allCases {
      let wire = all.reduce(0) { $0 + $1.statistics[kind].wireBytes }
      let bf16 = rows * PolicyData.hidden * 2
      #expect(Double(wire) <= 1.03 * fraction * Double(bf16), "\(kind): \(Double(wire) / Double(bf16))")
      #expect(all[0].statistics.choices[kind.rawValue]?.reason == .budget)
    }
    for one in all {
      #expect(one.state == all[0].state)
      #expect(one.statistics.choices == all[0].statistics.choices)
    }
  }

  @Test(arguments: [0.1, 0.01])
  func anErrorBudgetHolds(budget: Double) throws {
    func outputs(_ policy: ExchangeOptions.Policy) throws -> [Float] {
      try SimulatedCluster(ranks: 3).run { fabric in
        let exchange = try ExpertExchange(
          fabric: fabric, layout: ExpertLayout(experts: PolicyData.experts, hidden: PolicyData.hidden),
          options: .init(copies: .perRank, compensation: .none, policy: policy))
        return try PolicyData.random.train(exchange, rank: fabric.rank, steps: 0..<4).last!.y
      }.flatMap(\.self)
    }
    // Dispatch and combine each take theirs; toy experts pass an error on about as large as they find it.
    let error = relativeError(try outputs(.budget(relativeError: budget)), try outputs(.off))
    #expect(error > 0 && error < 3 * budget, "\(error)")
  }
}
