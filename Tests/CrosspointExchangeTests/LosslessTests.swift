import CrosspointCore
import CrosspointExchange
import CrosspointFabric
import CrosspointRouting
import CrosspointTestSupport
import CrosspointTokens
import Testing

@Suite struct LosslessTests {
  /// Design rule 2, on any rank count, hidden size and skew.
  @Test(arguments: [1, 2, 3, 4, 6], [1, 3, 384, 1000])
  func identityExpertsReturnTheInputBitForBit(ranks: Int, hidden: Int) throws {
    for experts in [1, 5, 8] {
      try SimulatedCluster(ranks: ranks).run { fabric in
        let exchange = try ExpertExchange(fabric: fabric, layout: ExpertLayout(experts: experts, hidden: hidden))
        for seed in 0..<3 {
          let count = (fabric.rank * 7 + seed * 5) % 19
          let tokens = try randomBatch(rows: count, hidden: hidden, seed: UInt64(seed + fabric.rank))
          if count > 0 { tokens.elements[0] = -0.0 }
          // Skewed: the square pulls towards expert 0.
          var generator = SplitMix64(seed: UInt64(seed))
          let indices = (0..<count).map { _ in
            let u = generator.nextUnit()
            return Int32(Float(experts) * u * u)
          }
          let routing = try Routing(
            topkIndices: indices, topkWeights: Array(repeating: 1, count: count), topK: 1, experts: experts)
          let handle = try exchange.dispatch(tokens, routing)
          let y = try exchange.combine(handle.rows, handle)
          #expect(firstBitDifference(y.array, tokens.array) == nil)
        }
      }
    }
  }

  @Test func rowsArriveGroupedByExpertThenSourceThenTokenOrder() throws {
    try SimulatedCluster(ranks: 3).run { fabric in
      let exchange = try ExpertExchange(fabric: fabric, layout: ExpertLayout(experts: 4, hidden: 3))
      // Each row says where it comes from: rank, token, expert.
      let count = 6
      var elements: [Float] = []
      var indices: [Int32] = []
      for token in 0..<count {
        let expert = (token * 3 + fabric.rank) % 4
        elements += [Float(fabric.rank), Float(token), Float(expert)]
        indices.append(Int32(expert))
      }
      let tokens = try TokenBatch(elements, hidden: 3)
      let routing = try Routing(
        topkIndices: indices, topkWeights: Array(repeating: 1, count: count), topK: 1, experts: 4)
      let handle = try exchange.dispatch(tokens, routing)
      var expected: [[Float]] = []
      for expert in exchange.localExperts {
        for source in 0..<3 {
          for token in 0..<count where (token * 3 + source) % 4 == expert {
            expected.append([Float(source), Float(token), Float(expert)])
          }
        }
      }
      #expect(handle.rows.array == expected.flatMap { $0 })
      #expect(handle.rowsPerExpert.reduce(0, +) == expected.count)
    }
  }

  @Test func bruteForceMixtureAgreesWithFourRanks() throws {
    let (hidden, experts, topK) = (24, 6, 2)
    try SimulatedCluster(ranks: 4).run { fabric in
      let count = 20 + fabric.rank
      let exchange = try ExpertExchange(fabric: fabric, layout: ExpertLayout(experts: experts, hidden: hidden))
      let tokens = try randomBatch(rows: count, hidden: hidden, seed: UInt64(fabric.rank))
      let routing = try randomRouting(tokens: count, topK: topK, experts: experts, seed: UInt64(fabric.rank + 5))
      let dy = try randomBatch(rows: count, hidden: hidden, seed: UInt64(fabric.rank + 9))
      let step = try trainingStep(exchange, tokens: tokens, routing: routing, dy: dy)
      let toy = ToyExperts()
      var y = [Float](repeating: 0, count: count * hidden)
      var dx = y
      for token in 0..<count {
        let x = Array(tokens.row(token))
        for choice in 0..<topK {
          let slot = token * topK + choice
          guard routing.topkIndices[slot] >= 0 else { continue }
          let expert = Int(routing.topkIndices[slot])
          let weight = routing.topkWeights[slot]
          let output = toy.forward(x, expert: expert)
          let adjoint = toy.backward(x, Array(dy.row(token)).map { $0 * weight }, expert: expert)
          for d in 0..<hidden {
            y[token * hidden + d] += weight * output[d]
            dx[token * hidden + d] += adjoint[d]
          }
        }
      }
      #expect(relativeError(step.y, y) < 1e-6)
      #expect(relativeError(step.tokenGradients, dx) < 1e-6)
    }
  }

  @Test func zeroTokensOnSomeOrAllRanksIsOrdinary() throws {
    for empty in [[3], [0, 1], [0, 1, 2, 3]] {
      try SimulatedCluster(ranks: 4).run { fabric in
        let count = empty.contains(fabric.rank) ? 0 : 9
        let exchange = try ExpertExchange(
          fabric: fabric, layout: ExpertLayout(experts: 3, hidden: 5),
          options: .init(compression: .crossPolytope(.init(functions: 1))))
        let step = try trainingStep(
          exchange, tokens: randomBatch(rows: count, hidden: 5, seed: 1),
          routing: randomRouting(tokens: count, topK: 2, experts: 3, seed: 2),
          dy: randomBatch(rows: count, hidden: 5, seed: 3))
        #expect(step.y.count == count * 5)
        #expect(step.tokenGradients.allSatisfy { $0.isFinite })
      }
    }
  }

  @Test func repeatsAreBitwiseEqual() throws {
    func run() throws -> [StepResult] {
      try SimulatedCluster(ranks: 3).run { fabric in
        let exchange = try ExpertExchange(
          fabric: fabric, layout: ExpertLayout(experts: 4, hidden: 16),
          options: .init(compression: .crossPolytope(.init(functions: 2, width: 4)), wire: .init(.bf16)))
        return try trainingStep(
          exchange, tokens: clusteredBatch(rows: 30, hidden: 16, seed: UInt64(fabric.rank)),
          routing: randomRouting(tokens: 30, topK: 2, experts: 4, seed: 3),
          dy: randomBatch(rows: 30, hidden: 16, seed: 4))
      }
    }
    let (first, second) = (try run(), try run())
    for (a, b) in zip(first, second) { #expect(a.isBitwiseEqual(to: b)) }
  }
}
