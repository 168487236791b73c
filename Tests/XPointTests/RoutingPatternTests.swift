import CrosspointExchange
import CrosspointOptions
import CrosspointRouting
import Testing

private func routings(
  _ pattern: RoutingPattern, tokens: Int = 400, topK: Int = 2, experts: Int, ranks: Int, step: Int = 0
) throws -> [Routing] {
  let layout = try ExpertLayout(experts: experts, hidden: 1)
  return try (0..<ranks).map { rank in
    let place = RoutingPattern.Place(rank: rank, rankCount: ranks) { layout.experts(of: $0, rankCount: ranks) }
    return try pattern.routing(tokens: tokens, topK: topK, experts: experts, at: place, step: step, seed: 1)
  }
}

@Test(arguments: RoutingPattern.allCases)
func everyPatternNamesDifferentExpertsAndIsRepeatable(_ pattern: RoutingPattern) throws {
  for (experts, ranks, topK) in [(16, 4, 2), (7, 3, 3), (2, 4, 2), (1, 1, 1), (3, 2, 3)] {
    for step in 0..<4 {
      let all = try routings(pattern, tokens: 64, topK: topK, experts: experts, ranks: ranks, step: step)
      #expect(try all == routings(pattern, tokens: 64, topK: topK, experts: experts, ranks: ranks, step: step))
      for routing in all {
        for token in 0..<routing.tokens {
          let chosen = routing.topkIndices[token * topK..<(token + 1) * topK]
          let weights = routing.topkWeights[token * topK..<(token + 1) * topK]
          #expect(Set(chosen).count == topK)
          #expect(abs(weights.reduce(0, +) - 1) < 1e-5)
        }
      }
    }
  }
}

@Test func eachPatternIsAsSkewedAsItSays() throws {
  func perExpert(_ pattern: RoutingPattern, step: Int = 0) throws -> [Int] {
    try routings(pattern, experts: 16, ranks: 4, step: step).reduce(into: Array(repeating: 0, count: 16)) {
      sum, routing in
      for expert in 0..<16 { sum[expert] += routing.tokensPerExpert[expert] }
    }
  }
  let balanced = try perExpert(.balanced)
  #expect(balanced.max()! - balanced.min()! <= 4)
  let total = balanced.reduce(0, +)
  #expect(try perExpert(.hotExperts)[..<2].reduce(0, +) > total * 3 / 4)
  #expect(try perExpert(.hotRank)[..<4].reduce(0, +) > total * 3 / 4)
  #expect(try perExpert(.rotating, step: 3)[6..<8].reduce(0, +) > total * 3 / 4)
  #expect(try perExpert(.emptyRank)[12...].reduce(0, +) == 0)
  let zipf = try perExpert(.zipf)
  #expect(zipf[0] > 2 * zipf[3] && zipf[0] > 5 * zipf[15] && zipf[15] > 0, "\(zipf)")
  let ragged = try routings(.ragged, experts: 16, ranks: 4).map(\.tokens)
  #expect(ragged.last == 0 && ragged.reduce(0, +) > 1590)
  #expect(try (0..<4).map { try routings(.burst, experts: 16, ranks: 1, step: $0)[0].tokens } == [50, 50, 50, 400])
  for routing in try routings(.spread, experts: 16, ranks: 4) {
    for token in 0..<routing.tokens {
      #expect(routing.topkIndices[2 * token] / 4 != routing.topkIndices[2 * token + 1] / 4)
    }
  }
}
