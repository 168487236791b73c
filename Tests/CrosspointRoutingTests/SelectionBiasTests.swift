import CrosspointCore
import CrosspointRouting
import Testing

@Suite("Selection bias")
struct SelectionBiasTests {
  @Test func movesTheChoiceButNotTheWeights() throws {
    let router = try TopKRouter(experts: 3, topK: 2, scoring: .sigmoid(scale: 1))
    let logits: [Float] = [2, 1, 0]
    let plain = try router.route(logits: logits)
    let biased = try router.route(logits: logits, bias: SelectionBias(values: [-1, 0, 0]))
    #expect(plain.routing.topkIndices == [0, 1])
    #expect(biased.routing.topkIndices == [1, 2])
    #expect(biased.probabilities == plain.probabilities)
    let (first, second) = (plain.probabilities[1], plain.probabilities[2])
    #expect(abs(biased.routing.topkWeights[0] - first / (first + second)) < 1e-6)
    #expect(abs(biased.routing.topkWeights[1] - second / (first + second)) < 1e-6)
  }

  @Test(arguments: everyScoring)
  func equalBiasesChangeNothing(scoring: TopKRouter.Scoring) throws {
    let router = try TopKRouter(experts: 8, topK: 3, scoring: scoring)
    let logits = separatedLogits(tokens: 20, experts: 8, seed: 21)
    let bias = try SelectionBias(values: [Float](repeating: 0.25, count: 8))
    #expect(try router.route(logits: logits, bias: bias).routing == router.route(logits: logits).routing)
  }

  @Test func stepsByTheSignOfTheDistanceToTheMean() throws {
    var bias = try SelectionBias(values: [1, 2, 3, 4], rate: 0.5)
    try bias.update(tokensPerExpert: [0, 4, 2, 2])
    #expect(bias.values == [1.5, 1.5, 3, 4])
    try bias.update(tokensPerExpert: [0, 0, 0, 0])
    #expect(bias.values == [1.5, 1.5, 3, 4])
  }

  @Test func stepsFromReducedCounts() throws {
    var bias = try SelectionBias(experts: 2, rate: 1)
    try bias.update(tokensPerExpert: [5, 0]) { counts in
      #expect(counts == [5, 0])
      counts = [5, 20]
    }
    #expect(bias.values == [1, -1])
  }

  @Test func balancesASkewedStream() throws {
    let router = try TopKRouter(experts: 8, topK: 2, scoring: .sigmoid(scale: 2.5))
    var bias = try SelectionBias(experts: 8, rate: 0.01)
    func imbalance(_ counts: [Int]) -> Double { Double(counts.max()!) / (Double(counts.reduce(0, +)) / 8) }
    func batch(_ step: UInt64) -> [Float] {
      uniformFloats(128 * 8, spread: 1, seed: step).enumerated().map { $1 + 0.3 * Float($0 % 8) }
    }
    let before = try imbalance(router.route(logits: batch(0), bias: bias).routing.tokensPerExpert)
    for step in 1...100 {
      try bias.update(
        tokensPerExpert: router.route(logits: batch(UInt64(step)), bias: bias).routing.tokensPerExpert)
    }
    let after = try imbalance(router.route(logits: batch(101), bias: bias).routing.tokensPerExpert)
    #expect(before > 2.5)
    #expect(after < 1.4)
  }
}
