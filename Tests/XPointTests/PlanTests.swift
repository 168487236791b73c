import CrosspointExchange
import Testing

@testable import xpoint

@Suite struct PlanTests {
  private static func traffic(
    nodes: Int, ranksPerNode: Int, experts: Int = 64, skew: Double = 0, _ copies: ExchangeOptions.Copies
  ) throws -> PlanTraffic {
    let shape = PlanShape(
      nodes: nodes, ranksPerNode: ranksPerNode, tokens: 1000, hidden: 64, topK: 8, experts: experts, skew: skew)
    return try PlanTraffic(shape, copies)
  }

  /// Groups of `experts` of 64 that random top-8 choices reach, of all such groups: 1 − C(64 − e, 8) / C(64, 8).
  private static func reached(_ experts: Int) -> Double {
    var missed = 1.0
    for choice in 0..<8 { missed *= Double(max(0, 64 - experts - choice)) / Double(64 - choice) }
    return 1 - missed
  }

  @Test func rowsOfRandomChoicesAreThoseOfTheFormula() throws {
    let expert = try Self.traffic(nodes: 4, ranksPerNode: 2, .perExpert)
    #expect(abs(expert.pairs / 8000 - 1) < 1e-9)
    #expect(abs(expert.between / 6000 - 1) < 1e-9 && abs(expert.within / 1000 - 1) < 1e-9)
    let rank = try Self.traffic(nodes: 4, ranksPerNode: 2, .perRank)
    #expect(abs(rank.between / (6000 * Self.reached(8)) - 1) < 0.02)
    let node = try Self.traffic(nodes: 4, ranksPerNode: 2, .perNode())
    #expect(abs(node.between / (3000 * Self.reached(16)) - 1) < 0.02)
    #expect(node.within == 0 && abs(node.handed / 4000 - 1) < 1e-9)
  }

  /// The busiest rank gets more of the rows the more unequally experts are wanted, and one with all of two experts too.
  @Test func unequalExpertsMakeABusiestRank() throws {
    let rows = try [0, 0.5, 1].map { try Self.traffic(nodes: 8, ranksPerNode: 1, skew: $0, .perExpert).pairs }
    #expect(rows[0] < 0.9 * rows[1] && rows[1] < 0.9 * rows[2] && rows[2] < 8 * 8000)
    let uneven = try Self.traffic(nodes: 8, ranksPerNode: 1, experts: 9, .perExpert)
    #expect(abs(uneven.pairs / 8000 - 16.0 / 9) < 1e-3)
    let all = try Self.traffic(nodes: 16, ranksPerNode: 1, experts: 8, .perExpert)
    #expect(abs(all.pairs / 8000 - 2) < 1e-9, "every token goes to all eight, which are on half of the ranks")
  }

  @Test func everyRankGetsATokenThatWantsAllExperts() throws {
    let all = try Self.traffic(nodes: 8, ranksPerNode: 1, experts: 8, .perRank)
    #expect(all.pairs == 8000 && all.between == 7000)
  }
}
