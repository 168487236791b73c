import CrosspointCore
import CrosspointRouting
import CrosspointTestSupport
import Testing

@Suite("Top-k router, gradients")
struct RouterGradientTests {
  struct Case: CustomTestStringConvertible, Sendable {
    var scoring: TopKRouter.Scoring
    var loadBalance: Float = 0
    var zLoss: Float = 0
    var capacityFactor: Double?
    var topK = 3
    var testDescription: String { "\(scoring), \(loadBalance), \(zLoss), \(capacityFactor ?? 0), top-\(topK)" }
  }

  static let cases: [Case] = everyScoring.flatMap { scoring in
    [
      Case(scoring: scoring),
      Case(scoring: scoring, topK: 1),
      Case(scoring: scoring, topK: 6),
      Case(scoring: scoring, loadBalance: 2),
      Case(scoring: scoring, zLoss: 0.5),
      Case(scoring: scoring, loadBalance: 2, zLoss: 0.5, capacityFactor: 0.6),
    ]
  }

  @Test(arguments: cases)
  func matchCentralDifferences(_ test: Case) throws {
    let (tokens, experts) = (5, 6)
    let router = try TopKRouter(
      experts: experts, topK: test.topK, scoring: test.scoring, loadBalance: test.loadBalance, zLoss: test.zLoss,
      capacityFactor: test.capacityFactor)
    let logits = separatedLogits(tokens: tokens, experts: experts, seed: 11)
    let gradients = randomFloats(tokens * test.topK, seed: 12)
    let decision = try router.route(logits: logits)
    #expect((decision.overflow > 0) == (test.capacityFactor != nil))
    let scale: Float = 0.5

    func loss(_ logits: [Float], auxiliary: Bool) throws -> Double {
      let moved = try router.route(logits: logits)
      #expect(moved.routing.topkIndices == decision.routing.topkIndices)
      let main = zip(moved.routing.topkWeights, gradients).reduce(0.0) { $0 + Double($1.0) * Double($1.1) }
      return main + (auxiliary ? Double(scale) * moved.losses.total : 0)
    }
    let numeric = try centralDifferences(at: logits) { try loss($0, auxiliary: true) }
    let exact = try router.backward(decision, topkWeightGradients: gradients, auxiliaryScale: scale)
    try check(exact, numeric)

    let numericMain = try centralDifferences(at: logits) { try loss($0, auxiliary: false) }
    let exactMain = try router.backward(decision, topkWeightGradients: gradients, auxiliaryScale: 0)
    try check(exactMain, numericMain)
  }

  /// A single expert's renormalised weight is constant: both sides are zero, so the bound is absolute there.
  private func check(_ exact: [Float], _ numeric: [Double]) throws {
    if numeric.allSatisfy({ abs($0) < 1e-4 }) {
      #expect(exact.allSatisfy { abs($0) < 1e-4 })
    } else {
      #expect(relativeError(exact, numeric) < 1e-3)
    }
  }

  @Test(arguments: everyScoring)
  func unsentPairsGiveNoGradientWhateverTheirSlotHolds(scoring: TopKRouter.Scoring) throws {
    let router = try TopKRouter(experts: 4, topK: 2, scoring: scoring, capacityFactor: 0.5)
    let decision = try router.route(logits: separatedLogits(tokens: 8, experts: 4, seed: 13))
    var gradients = randomFloats(16, seed: 14)
    let expected = try router.backward(decision, topkWeightGradients: gradients)
    for slot in gradients.indices where decision.routing.topkIndices[slot] == -1 { gradients[slot] = .nan }
    #expect(try router.backward(decision, topkWeightGradients: gradients) == expected)
  }

  /// Three ranks of 4, 0 and 2 tokens with counts reduced over them against one rank with all six tokens.
  @Test(arguments: everyScoring)
  func reducedCountsGiveTheLossAndGradientOfTheWholeBatch(scoring: TopKRouter.Scoring) throws {
    let router = try TopKRouter(experts: 5, topK: 2, scoring: scoring, loadBalance: 0.7, zLoss: 0.3)
    let logits = separatedLogits(tokens: 6, experts: 5, seed: 15)
    let gradients = randomFloats(12, seed: 16)
    let whole = try router.route(logits: logits)
    let wholeGradient = try router.backward(whole, topkWeightGradients: gradients)

    let parts = [0..<4, 4..<4, 4..<6]
    var sums = [Double](repeating: 0, count: 7)
    for part in parts {
      _ = try router.route(logits: Array(logits[part.lowerBound * 5..<part.upperBound * 5])) { counts in
        for i in counts.indices { sums[i] += counts[i] }
      }
    }
    #expect(sums == whole.routing.tokensPerExpert.map(Double.init) + [6, 0])

    var (loss, gradient) = (0.0, [Float]())
    for part in parts {
      let share = Float(part.count) / 6
      let decision = try router.route(logits: Array(logits[part.lowerBound * 5..<part.upperBound * 5])) { $0 = sums }
      loss += Double(share) * decision.losses.total
      gradient += try router.backward(
        decision, topkWeightGradients: Array(gradients[part.lowerBound * 2..<part.upperBound * 2]),
        auxiliaryScale: share)
    }
    #expect(abs(loss - whole.losses.total) < 1e-6)
    #expect(relativeError(gradient, wholeGradient.map(Double.init)) < 1e-6)
  }
}
