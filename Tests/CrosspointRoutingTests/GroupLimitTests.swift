import CrosspointCore
import CrosspointRouting
import CrosspointTestSupport
import Testing

@Suite("Node-limited routing")
struct GroupLimitTests {
  @Test(arguments: everyScoring, [false, true])
  func choosesTheBestExpertsOfTheBestGroups(scoring: TopKRouter.Scoring, biased: Bool) throws {
    let (experts, groups, topK) = (12, 4, 3)
    let plain = try TopKRouter(experts: experts, topK: topK, scoring: scoring)
    let router = try plain.limited(toGroups: 2, of: groups)
    let logits = randomFloats(60 * experts, seed: 4)
    let bias = biased ? try SelectionBias(values: uniformFloats(experts, spread: 0.3, seed: 5)) : nil
    let decision = try router.route(logits: logits, bias: bias)
    var differ = 0
    for row in 0..<60 {
      let range = row * experts..<(row + 1) * experts
      var keys = scoring == .topKThenSoftmax ? Array(logits[range]) : Array(decision.probabilities[range])
      if let bias { for expert in keys.indices { keys[expert] += bias.values[expert] } }
      func score(_ group: Int) -> Float { keys[group * 3..<group * 3 + 3].sorted(by: >).prefix(2).reduce(0, +) }
      let best = (0..<groups).sorted { score($0) > score($1) }.prefix(2)
      let allowed = (0..<experts).filter { best.contains($0 / 3) }.sorted { keys[$0] > keys[$1] }
      let chosen = decision.routing.topkIndices[row * topK..<(row + 1) * topK].map(Int.init)
      #expect(chosen == Array(allowed.prefix(topK)))
      let free = (0..<experts).sorted { keys[$0] > keys[$1] }.prefix(topK)
      if Array(free) != chosen { differ += 1 }
    }
    #expect(differ > 5)
    #expect(decision.routing.topkWeights.allSatisfy { $0 > 0 })
  }

  @Test(arguments: everyScoring)
  func gradientsMatchCentralDifferences(scoring: TopKRouter.Scoring) throws {
    let router = try TopKRouter(experts: 6, topK: 2, scoring: scoring, loadBalance: 1).limited(toGroups: 1, of: 2)
    try expectExactGradients(of: router)
  }

  @Test func groupsThatCannotServeAreRefused() throws {
    let router = try TopKRouter(experts: 6, topK: 3, scoring: .topKThenSoftmax)
    for (kept, groups, argument) in [
      (1, 4, "groups"), (1, 0, "groups"), (0, 2, "kept"), (4, 3, "kept"), (1, 3, "kept"),
    ] {
      do {
        _ = try router.limited(toGroups: kept, of: groups)
        Issue.record("\(kept) of \(groups) groups passed")
      } catch {
        #expect(error.operation == "GroupLimit" && error.argument == argument)
      }
    }
  }
}
