import CrosspointCore
import CrosspointRouting
import CrosspointTestSupport
import CrosspointTokens
import Testing

@Suite("Linear router")
struct LinearRouterTests {
  @Test func routesByTheProductWithItsWeight() throws {
    let gate = try LinearRouter(
      hidden: 5, router: TopKRouter(experts: 4, topK: 2, scoring: .topKThenSoftmax), seed: 1)
    let x = randomFloats(3 * 5, seed: 2)
    var logits = [Float](repeating: 0, count: 3 * 4)
    for (token, expert, column) in (0..<60).map({ ($0 / 20, $0 / 5 % 4, $0 % 5) }) {
      logits[token * 4 + expert] += x[token * 5 + column] * gate.weight[expert * 5 + column]
    }
    let decision = try gate.route(TokenBatch(x, hidden: 5))
    let expected = try gate.router.route(logits: logits)
    #expect(decision.routing.topkIndices == expected.routing.topkIndices)
    #expect(zip(decision.probabilities, expected.probabilities).allSatisfy { abs($0 - $1) < 1e-6 })
  }

  @Test func startsTheSameFromTheSameSeed() throws {
    let router = try TopKRouter(experts: 3, topK: 1, scoring: .topKThenSoftmax)
    let gates = try [7, 7, 8].map { try LinearRouter(hidden: 16, router: router, seed: $0) }
    #expect(gates[0].weight == gates[1].weight)
    #expect(gates[0].weight != gates[2].weight)
    #expect(gates[0].weight.allSatisfy { abs($0) <= 0.25 })
    #expect(Set(gates[0].weight).count > 40)
  }

  @Test(arguments: everyScoring)
  func gradientsMatchCentralDifferences(scoring: TopKRouter.Scoring) throws {
    let (tokens, hidden, experts, topK) = (4, 7, 5, 2)
    let router = try TopKRouter(experts: experts, topK: topK, scoring: scoring, loadBalance: 0.5, zLoss: 0.1)
    var gate = try LinearRouter(hidden: hidden, router: router, seed: 31)
    gate.selectionBias = try SelectionBias(values: uniformFloats(experts, spread: 0.2, seed: 5))
    let x = randomFloats(tokens * hidden, seed: 34)
    let gradients = randomFloats(tokens * topK, seed: 33)
    let decision = try gate.route(TokenBatch(x, hidden: hidden))

    func loss(_ gate: LinearRouter, _ x: [Float]) throws -> Double {
      let moved = try gate.route(TokenBatch(x, hidden: hidden))
      #expect(moved.routing.topkIndices == decision.routing.topkIndices)
      return zip(moved.routing.topkWeights, gradients).reduce(moved.losses.total) {
        $0 + Double($1.0) * Double($1.1)
      }
    }
    let numericWeight = try centralDifferences(at: gate.weight, step: 4e-3) { weight in
      var moved = gate
      moved.weight = weight
      return try loss(moved, x)
    }
    let numericTokens = try centralDifferences(at: x, step: 4e-3) { try loss(gate, $0) }

    let batch = try TokenBatch(x, hidden: hidden)
    var dTokens = try TokenBatch(rows: tokens, hidden: hidden)
    try gate.backward(decision, topkWeightGradients: gradients, tokens: batch, into: &dTokens)
    #expect(relativeError(gate.weightGradients, numericWeight) < 1e-3)
    #expect(relativeError(dTokens.array, numericTokens) < 1e-3)

    let (once, onceTokens) = (gate.weightGradients, dTokens.array)
    try gate.backward(decision, topkWeightGradients: gradients, tokens: batch, into: &dTokens)
    #expect(relativeError(gate.weightGradients, once.map { 2 * Double($0) }) < 1e-5)
    #expect(relativeError(dTokens.array, onceTokens.map { 2 * Double($0) }) < 1e-5)
  }

  /// Other ranks wait for its counts, and so hear that it has failed.
  @Test func wrongTokensAreCountedAsRefused() throws {
    let gate = try LinearRouter(
      hidden: 3, router: TopKRouter(experts: 4, topK: 2, scoring: .topKThenSoftmax), seed: 1)
    let narrow = try TokenBatch(rows: 2, hidden: 2)
    var reduced: [[Double]] = []
    let error = #expect(throws: CrosspointError.self) { try gate.route(narrow) { reduced.append($0) } }
    #expect(error?.code == .invalidArgument && error?.argument == "tokens")
    #expect(reduced == [[0, 0, 0, 0, 0, 1]])
  }

  @Test(arguments: [0, 11, 13])
  func weightsOfAnotherCountAreRefused(count: Int) throws {
    let router = try TopKRouter(experts: 4, topK: 1, scoring: .topKThenSoftmax)
    let gate = try LinearRouter(hidden: 3, router: router, seed: 1)
    let tokens = try TokenBatch([1, 2, 3, 4, 5, 6], hidden: 3)
    let decision = try gate.route(tokens)
    let wrong = [Float](repeating: 1, count: count)
    func expectRefusal(_ argument: String, _ body: () throws -> Void) {
      let error = #expect(throws: CrosspointError.self, performing: body)
      #expect(error?.code == .invalidArgument && error?.argument == argument)
      #expect(error?.message == "\(count) numbers where 4 × 3 are expected")
    }
    var other = gate
    other.weight = wrong
    var reduced: [[Double]] = []
    expectRefusal("weight") { _ = try other.route(tokens) { reduced.append($0) } }
    #expect(reduced == [[0, 0, 0, 0, 0, 1]])
    var dTokens = try TokenBatch(rows: 2, hidden: 3)
    expectRefusal("weight") {
      try other.backward(decision, topkWeightGradients: [1, 1], tokens: tokens, into: &dTokens)
    }
    other = gate
    other.weightGradients = wrong
    expectRefusal("weightGradients") {
      try other.backward(decision, topkWeightGradients: [1, 1], tokens: tokens, into: &dTokens)
    }
    #expect(dTokens.array == [0, 0, 0, 0, 0, 0])
  }

  /// 64 TiB of weights, and as many gradients.
  @Test func weightsThatNoMemoryHoldsAreRefused() throws {
    let router = try TopKRouter(experts: 1 << 20, topK: 1, scoring: .topKThenSoftmax)
    let error = #expect(throws: CrosspointError.self) { try LinearRouter(hidden: 1 << 24, router: router, seed: 1) }
    #expect(error?.code == .outOfMemory && error?.argument == "hidden")
  }

  @Test func zeroTokensAreOrdinary() throws {
    var gate = try LinearRouter(
      hidden: 3, router: TopKRouter(experts: 4, topK: 2, scoring: .sigmoid(scale: 1), loadBalance: 1, zLoss: 1),
      seed: 1)
    let tokens = try TokenBatch(rows: 0, hidden: 3)
    var dTokens = try TokenBatch(rows: 0, hidden: 3)
    let decision = try gate.route(tokens)
    #expect(decision.routing.tokens == 0)
    #expect(decision.routing.tokensPerExpert == [0, 0, 0, 0])
    #expect(decision.losses.total == 0)
    try gate.backward(decision, topkWeightGradients: [], tokens: tokens, into: &dTokens)
    #expect(gate.weightGradients.allSatisfy { $0 == 0 })
  }

  @Test func sharedExpertsAreAddedElementByElement() throws {
    var y = try TokenBatch([1, 2, 3, 4], hidden: 2)
    try y.add(TokenBatch([10, 20, 30, 40], hidden: 2))
    #expect(y.array == [11, 22, 33, 44])
    #expect(throws: CrosspointError.self) { try y.add(TokenBatch([1, 2, 3, 4], hidden: 4)) }
    #expect(y.array == [11, 22, 33, 44])
  }
}
