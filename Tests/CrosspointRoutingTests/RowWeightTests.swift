import CrosspointRouting
import CrosspointTestSupport
import Testing

@Suite("Rows that stand for several tokens")
struct RowWeightTests {
  /// A row of weight n has the losses and gradients of n equal rows; a row of weight 0 has none.
  @Test(arguments: everyScoring)
  func countAsOftenInLossesAndGradients(scoring: TopKRouter.Scoring) throws {
    let router = try TopKRouter(experts: 5, topK: 2, scoring: scoring, loadBalance: 0.7, zLoss: 0.3)
    let logits = randomFloats(4 * 5, seed: 2)
    let weights: [Int32] = [2, 1, 0, 3]
    let weighted = try router.route(logits: logits, traits: RowTraits(tokensPerRow: weights))
    let repeated = weights.enumerated().flatMap { row, count in
      (0..<count).flatMap { _ in Array(logits[row * 5..<(row + 1) * 5]) }
    }
    let plain = try router.route(logits: repeated)
    #expect(abs(weighted.losses.loadBalance - plain.losses.loadBalance) < 1e-6)
    #expect(abs(weighted.losses.z - plain.losses.z) < 1e-6)
    let gradient = try router.backward(weighted, topkWeightGradients: [Float](repeating: 0, count: 8))
    let parts = try router.backward(plain, topkWeightGradients: [Float](repeating: 0, count: 12))
    var row = 0
    for (index, count) in weights.enumerated() {
      for expert in 0..<5 {
        let sum = (row..<row + Int(count)).reduce(0.0) { $0 + Double(parts[$1 * 5 + expert]) }
        #expect(abs(Double(gradient[index * 5 + expert]) - sum) < 1e-6)
      }
      row += Int(count)
    }
  }

  @Test func onlyPaddingHasNoLoss() throws {
    let router = try TopKRouter(experts: 3, topK: 1, scoring: .topKThenSoftmax, loadBalance: 1, zLoss: 1)
    let decision = try router.route(logits: [1, 2, 3], traits: RowTraits(tokensPerRow: [0]))
    #expect(decision.losses.total == 0)
    #expect(try router.backward(decision, topkWeightGradients: [0]).allSatisfy { $0 == 0 })
    for bad: [Int32] in [[1, 1], [-1]] {
      do {
        _ = try router.route(logits: [1, 2, 3], traits: RowTraits(tokensPerRow: bad))
        Issue.record("\(bad) passed")
      } catch {
        #expect(error.argument == "tokensPerRow")
      }
    }
  }

  @Test func overlapIsTheJaccardIndexOfExpertSets() throws {
    let fine = try Routing(
      topkIndices: [0, 1, 2, 3, 0, -1, 4, 5], topkWeights: [Float](repeating: 1, count: 8), topK: 2, experts: 6)
    let coarse = try Routing(topkIndices: [1, 0, 0, 5], topkWeights: [1, 1, 1, 1], topK: 2, experts: 6)
    var overlap = SelectionOverlap()
    #expect(overlap.mean == 1)
    overlap.add(fine, nil, coarse, [0, 0, 1, 1])
    // {0,1}∩{0,1}: 1; {2,3}∩{0,1}: 0; {0}∩{0,5}: 1/2; {4,5}∩{0,5}: 1/3.
    #expect(overlap.tokens == 4 && abs(overlap.sum - (1 + 0.5 + 1.0 / 3)) < 1e-12)
    var none = SelectionOverlap()
    none.add(fine, [-1, 2], coarse, [-1, -1])
    #expect(none.tokens == 1 && none.mean == 0)
    overlap += none
    #expect(overlap.tokens == 5)
  }
}
