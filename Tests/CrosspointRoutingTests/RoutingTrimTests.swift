import CrosspointCore
import CrosspointRouting
import CrosspointTestSupport
import CrosspointTokens
import Testing

private func failure(_ body: () throws(CrosspointError) -> Void) -> CrosspointError? {
  do { try body() } catch { return error }
  return nil
}

@Suite("Trims after routing")
struct RoutingTrimTests {
  private func router(
    _ scoring: TopKRouter.Scoring, topK: Int = 3, loadBalance: Float = 0, capacityFactor: Double? = nil
  ) throws -> TopKRouter {
    try TopKRouter(
      experts: 6, topK: topK, scoring: scoring, loadBalance: loadBalance, zLoss: loadBalance / 2,
      capacityFactor: capacityFactor)
  }

  @Test(arguments: everyScoring)
  func pruningDropsWeakChoicesAndRenormalisesTheRest(scoring: TopKRouter.Scoring) throws {
    let plain = try router(scoring)
    let threshold = 0.85
    let pruned = try plain.trimmed(by: .pruning(threshold: threshold))
    let logits = randomFloats(80 * 6, seed: 3)
    let (before, after) = (try plain.route(logits: logits), try pruned.route(logits: logits))
    var dropped = 0
    for row in 0..<80 {
      let slots = row * 3..<(row + 1) * 3
      let weights = before.routing.topkWeights[slots].map(Double.init)
      let keeps = weights.map { $0 >= threshold * weights[0] }
      dropped += keeps.count { !$0 }
      let left = zip(weights, keeps).reduce(0.0) { $0 + ($1.1 ? $1.0 : 0) }
      let isPlain = scoring == .softmaxThenTopK(renormalised: false)
      let factor = isPlain ? 1 : weights.reduce(0, +) / left
      for (place, slot) in slots.enumerated() {
        #expect(after.routing.topkIndices[slot] == (keeps[place] ? before.routing.topkIndices[slot] : -1))
        let expected = keeps[place] ? factor * weights[place] : 0
        #expect(abs(Double(after.routing.topkWeights[slot]) - expected) < 1e-5 * max(1, expected))
      }
    }
    #expect(dropped > 40 && after.trimmed == dropped && after.overflow == 0)
    #expect(after.routing.tokensPerExpert.reduce(0, +) == 240 - dropped)
  }

  @Test(arguments: everyScoring, [false, true])
  func gradientsMatchCentralDifferences(scoring: TopKRouter.Scoring, prunes: Bool) throws {
    // Sigmoid scores lie closer together.
    let trim: RoutingTrim =
      prunes ? .pruning(threshold: scoring == .sigmoid(scale: 2.5) ? 0.93 : 0.85) : .randomSecond(threshold: 0.6)
    for capacityFactor in [nil, 0.7] {
      let router = try router(scoring, loadBalance: 1, capacityFactor: capacityFactor).trimmed(by: trim)
      let logits = separatedLogits(tokens: 7, experts: 6, seed: 21)
      let traits = RowTraits(tokensPerRow: [1, 4, 0, 2, 4, 1, 3], seed: 5)
      let gradients = randomFloats(21, seed: 22)
      let decision = try router.route(logits: logits, traits: traits)
      #expect(decision.trimmed > 2 && (capacityFactor == nil || decision.overflow > 0))
      func loss(_ logits: [Float]) throws -> Double {
        let moved = try router.route(logits: logits, traits: traits)
        #expect(moved.routing.topkIndices == decision.routing.topkIndices)
        return zip(moved.routing.topkWeights, gradients).reduce(0.0) { $0 + Double($1.0) * Double($1.1) }
          + 0.5 * moved.losses.total
      }
      let numeric = try centralDifferences(at: logits, step: 1e-3, of: loss)
      let exact = try router.backward(decision, topkWeightGradients: gradients, auxiliaryScale: 0.5)
      #expect(relativeError(exact, numeric.map(Float.init)) < 2e-3)
    }
  }

  @Test func theMostImportantRowsKeepTheirChoices() throws {
    let router = try router(.topKThenSoftmax, topK: 2)
    let protecting = try router.trimmed(by: .pruning(threshold: 1, protecting: 0.25))
    let logits = separatedLogits(tokens: 9, experts: 6, seed: 2)
    let importance: [Float] = [1, 5, 2, 5, 0, 3, 5, 1, 1]
    let indices = try protecting.route(logits: logits, traits: RowTraits(importance: importance)).routing.topkIndices
    // A quarter of nine rows, rounded up, is three.
    #expect((0..<9).map { indices[2 * $0 + 1] >= 0 } == (0..<9).map { [1, 3, 6].contains($0) })
    let missing = failure { () throws(CrosspointError) in _ = try protecting.route(logits: logits) }
    #expect(missing?.argument == "importance" && missing?.message.contains("0 values for 9 rows") == true)
    let bad = failure { () throws(CrosspointError) in
      _ = try protecting.route(logits: logits, traits: RowTraits(importance: [Float](repeating: .nan, count: 9)))
    }
    #expect(bad?.code == .nonFinite)
  }

  @Test func aLinearRouterProtectsRowsOfLargestMagnitude() throws {
    let gate = try LinearRouter(
      hidden: 19, router: router(.topKThenSoftmax, topK: 2).trimmed(by: .pruning(threshold: 1, protecting: 0.1)),
      seed: 1)
    var x = randomFloats(20 * 19, seed: 5)
    for d in 0..<19 {
      x[4 * 19 + d] *= 10
      x[11 * 19 + d] *= -8
    }
    let tokens = try TokenBatch(x, hidden: 19)
    let indices = try gate.route(tokens).routing.topkIndices
    #expect((0..<20).filter { indices[2 * $0 + 1] >= 0 } == [4, 11])
    let sums = (0..<20).map { row in x[row * 19..<(row + 1) * 19].reduce(0.0) { $0 + Double(abs($1)) } }
    #expect(relativeError(tokens.rowMagnitudes().map(Double.init), sums) < 1e-6)
  }

  @Test func aRandomSecondStaysWithTheProbabilityOfItsWeight() throws {
    let router = try TopKRouter(experts: 2, topK: 2, scoring: .topKThenSoftmax).trimmed(
      by: .randomSecond(threshold: 0.4))
    // w₁ = 0.1 → kept with probability 0.25; w₁ = 0.4 and more → always.
    let cases: [(gap: Float, probability: Double)] = [(2.197_225, 0.25), (0.3, 1)]
    for (gap, probability) in cases {
      let logits = (0..<8000).map { $0 % 2 == 0 ? gap : 0 }
      let decision = try router.route(logits: logits, traits: RowTraits(seed: 7))
      let kept = decision.routing.tokensPerExpert[1]
      #expect(abs(Double(kept) / 4000 - probability) < 0.03)
      #expect(decision.routing.tokensPerExpert[0] == 4000 && decision.trimmed == 4000 - kept)
      #expect(try router.route(logits: logits, traits: RowTraits(seed: 7)).routing == decision.routing)
      let other = try router.route(logits: logits, traits: RowTraits(seed: 8)).routing
      #expect((other == decision.routing) == (probability == 1))
      // The first weight stays what it was.
      let first = decision.routing.topkWeights[0]
      #expect(stride(from: 0, to: 8000, by: 2).allSatisfy { decision.routing.topkWeights[$0] == first && first < 1 })
    }
  }

  @Test func capacityIsFilledByWhatTheTrimLeft() throws {
    // Second choices of tokens 0 and 1 are weak; without the trim they would fill expert 1 before token 2.
    let logits: [Float] = [5, 1, 0, 0, 5, 1, 0, 0, 0, 4.9, 5, 0]
    let plain = try TopKRouter(experts: 4, topK: 2, scoring: .topKThenSoftmax, capacityFactor: 1.3)
    #expect(plain.capacity(tokens: 3) == 2)
    #expect(try plain.route(logits: logits).routing.topkIndices == [0, 1, 0, 1, 2, -1])
    let pruned = try plain.trimmed(by: .pruning(threshold: 0.5)).route(logits: logits)
    #expect(pruned.routing.topkIndices == [0, -1, 0, -1, 2, 1])
    #expect(pruned.trimmed == 2 && pruned.overflow == 0)
  }

  @Test(arguments: [1, 3])
  func theCalibratedMedianPrunesHalfAndIsTheSameOnEveryRank(ranks: Int) throws {
    let router = try router(.topKThenSoftmax, topK: 2)
    let batches = (0..<ranks).map { randomFloats(400 * 6 * ($0 == 1 ? 0 : 1), seed: UInt64($0)) }
    var calibrations = [PruningCalibration](repeating: PruningCalibration(), count: ranks)
    for rank in 0..<ranks { try calibrations[rank].add(router.route(logits: batches[rank])) }
    var sums = [Double](repeating: 0, count: 1024)
    for calibration in calibrations {
      _ = failure { () throws(CrosspointError) in
        _ = try calibration.threshold { counts in
          for i in counts.indices { sums[i] += counts[i] }
        }
      }
    }
    let thresholds = try calibrations.map { try $0.threshold { $0 = sums } }
    #expect(Set(thresholds).count == 1)
    let ratios = try batches.flatMap { batch in
      let weights = try router.route(logits: batch).routing.topkWeights
      return stride(from: 0, to: weights.count, by: 2).map { Double(weights[$0 + 1] / weights[$0]) }
    }.sorted()
    #expect(abs(thresholds[0] - ratios[ratios.count / 2]) < 0.01)
    let pruned = try router.trimmed(by: .pruning(threshold: thresholds[0]))
    let dropped = try batches.reduce(0) { $0 + (try pruned.route(logits: $1).trimmed) }
    #expect(abs(Double(dropped) / Double(ratios.count) - 0.5) < 0.01)
  }

  @Test func badTrimsAreRefusedByName() throws {
    let router = try router(.topKThenSoftmax, topK: 2)
    let cases: [(RoutingTrim, String, String, String)] = [
      (.pruning(threshold: 1.5), "pruning", "threshold", "1.5"),
      (.pruning(threshold: -0.1), "pruning", "threshold", "-0.1"),
      (.pruning(threshold: .nan), "pruning", "threshold", "nan"),
      (.pruning(threshold: 0.5, protecting: 1.1), "pruning", "protecting", "1.1"),
      (.randomSecond(threshold: 0), "randomSecond", "threshold", "0.0"),
    ]
    for (trim, operation, argument, value) in cases {
      let error = failure { () throws(CrosspointError) in _ = try router.trimmed(by: trim) }
      #expect(error?.code == .invalidArgument && error?.operation == operation)
      #expect(error?.argument == argument && error?.message.contains(value) == true)
    }
    let one = try TopKRouter(experts: 2, topK: 1, scoring: .topKThenSoftmax)
    let single = failure { () throws(CrosspointError) in _ = try one.trimmed(by: .randomSecond()) }
    #expect(single?.argument == "topK")
    var calibration = PruningCalibration()
    let empty = failure { () throws(CrosspointError) in _ = try calibration.threshold() }
    #expect(empty?.message.contains("0 rows") == true)
    let trimmed = try router.trimmed(by: .pruning(threshold: 0.5)).route(logits: randomFloats(12, seed: 1))
    #expect(failure { () throws(CrosspointError) in try calibration.add(trimmed) }?.argument == "decision")
    let quantile = failure { () throws(CrosspointError) in _ = try calibration.threshold(quantile: 2) }
    #expect(quantile?.message.contains("2.0") == true)
  }
}
