import CrosspointCore
import CrosspointRouting
import CrosspointTestSupport
import Testing

@Suite("Top-k router, forward")
struct TopKRouterTests {
  static let shapes = [(tokens: 1, experts: 1, topK: 1), (7, 4, 2), (32, 16, 5), (9, 6, 6), (50, 5, 1), (0, 8, 2)]

  @Test(arguments: everyScoring, shapes)
  func agreesWithTheSlowReference(scoring: TopKRouter.Scoring, shape: (tokens: Int, experts: Int, topK: Int)) throws {
    for (seed, capacityFactor) in [nil, 1.0, 0.5].enumerated() {
      let router = try TopKRouter(
        experts: shape.experts, topK: shape.topK, scoring: scoring, loadBalance: 0.01, zLoss: 0.001,
        capacityFactor: capacityFactor)
      let logits = uniformFloats(shape.tokens * shape.experts, spread: 4, seed: UInt64(seed))
      for bias in [nil, uniformFloats(shape.experts, spread: 0.5, seed: 99)] {
        let decision = try router.route(logits: logits, bias: bias.map { try SelectionBias(values: $0) })
        let reference = ReferenceRouter(router: router, bias: bias).route(logits)
        #expect(decision.routing.topkIndices == reference.indices)
        #expect(close(decision.routing.topkWeights, reference.weights))
        #expect(abs(decision.losses.loadBalance - reference.loadBalance) <= 1e-5 * reference.loadBalance)
        #expect(abs(decision.losses.z - reference.z) <= 1e-5 * reference.z)
        #expect(decision.losses.total == decision.losses.loadBalance + decision.losses.z)
      }
    }
  }

  @Test(arguments: everyScoring)
  func countsKeptPairsPerExpert(scoring: TopKRouter.Scoring) throws {
    let router = try TopKRouter(experts: 5, topK: 2, scoring: scoring, capacityFactor: 0.7)
    let decision = try router.route(logits: randomFloats(40 * 5, seed: 3))
    let indices = decision.routing.topkIndices
    #expect(decision.routing.tokensPerExpert == (0..<5).map { expert in indices.count { $0 == expert } })
    #expect(decision.overflow == indices.count { $0 == -1 })
    #expect(decision.overflow > 0)
    #expect(decision.routing.tokensPerExpert.allSatisfy { $0 <= router.capacity(tokens: 40) })
    #expect(zip(indices, decision.routing.topkWeights).allSatisfy { $0 >= 0 ? $1 > 0 : $1 == 0 })
  }

  @Test func softmaxOverTheChosenEqualsRenormalisedSoftmax() throws {
    let logits = uniformFloats(64 * 12, spread: 6, seed: 4)
    let chosenFirst = try TopKRouter(experts: 12, topK: 3, scoring: .topKThenSoftmax)
    let renormalised = try TopKRouter(experts: 12, topK: 3, scoring: .softmaxThenTopK(renormalised: true))
    #expect(try chosenFirst.route(logits: logits).routing == renormalised.route(logits: logits).routing)
  }

  @Test(arguments: everyScoring)
  func lowestIndexWinsATie(scoring: TopKRouter.Scoring) throws {
    let router = try TopKRouter(experts: 4, topK: 2, scoring: scoring)
    #expect(try router.route(logits: [1, 1, 1, 1]).routing.topkIndices == [0, 1])
    #expect(try router.route(logits: [0, 2, 1, 2]).routing.topkIndices == [1, 3])
    #expect(try router.route(logits: [0, 1, 2, 1]).routing.topkIndices == [2, 1])
  }

  @Test(arguments: everyScoring)
  func extremeLogitsGiveFiniteWeights(scoring: TopKRouter.Scoring) throws {
    let router = try TopKRouter(experts: 3, topK: 2, scoring: scoring, loadBalance: 1, zLoss: 1)
    for logits: [Float] in [[-300, -300, -300], [300, -300, 0], [-1e30, 1e30, -1e30]] {
      let decision = try router.route(logits: logits)
      #expect(decision.routing.topkWeights.allSatisfy { $0.isFinite })
      #expect(decision.losses.total.isFinite)
      let dLogits = try router.backward(decision, topkWeightGradients: [1, -1])
      #expect(dLogits.allSatisfy { $0.isFinite })
    }
  }

  /// Capacity ceil(1 · 4 · 2 / 4) = 2. First choices: tokens 0, 1, 2, 3 want 0, 0, 0, 1: token 2 finds 0 full. Second
  /// choices: they want 1, 1, 1, 0: token 0 fills 1; tokens 1, 2 find it full, token 3 finds 0 full.
  @Test func capacityServesFirstChoicesInTokenOrderThenSecondChoices() throws {
    let router = try TopKRouter(experts: 4, topK: 2, scoring: .topKThenSoftmax, capacityFactor: 1)
    let logits: [Float] = [
      9, 8, 0, 0,
      9, 8, 0, 0,
      9, 8, 0, 0,
      8, 9, 0, 0,
    ]
    let decision = try router.route(logits: logits)
    #expect(router.capacity(tokens: 4) == 2)
    #expect(decision.routing.topkIndices == [0, 1, 0, -1, -1, -1, 1, -1])
    #expect(decision.routing.tokensPerExpert == [2, 2, 0, 0])
    #expect(decision.overflow == 4)
  }

  @Test func capacityRoundsUpAndNeverExceedsTheTokens() throws {
    let router = { factor in
      try TopKRouter(experts: 10, topK: 1, scoring: .topKThenSoftmax, capacityFactor: factor)
    }
    #expect(try router(1.0).capacity(tokens: 11) == 2)
    #expect(try router(1.1).capacity(tokens: 100) == 11)
    #expect(try router(1e300).capacity(tokens: 11) == 11)
    #expect(try router(nil).capacity(tokens: 11) == 11)
    #expect(try router(1.0).capacity(tokens: 0) == 0)
  }

  @Test(arguments: everyScoring)
  func evenLoadCostsExactlyTheCoefficient(scoring: TopKRouter.Scoring) throws {
    let router = try TopKRouter(experts: 4, topK: 4, scoring: scoring, loadBalance: 0.25)
    let losses = try router.route(logits: randomFloats(8 * 4, seed: 5)).losses
    #expect(abs(losses.loadBalance - 0.25) < 1e-6)
    #expect(losses.z == 0)
  }

  private func close(_ a: [Float], _ b: [Double]) -> Bool {
    a.count == b.count && zip(a, b).allSatisfy { abs(Double($0) - $1) <= 2e-6 * max(1, abs($1)) }
  }
}
