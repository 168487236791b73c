import CrosspointCore
import CrosspointRouting
import Foundation

/// The same routing in the plainest form: doubles, sorting, one token at a time.
struct ReferenceRouter {
  var router: TopKRouter
  var bias: [Float]?

  struct Decision {
    var indices: [Int32] = []
    var weights: [Double] = []
    var loadBalance = 0.0
    var z = 0.0
  }

  func route(_ logits: [Float]) -> Decision {
    let (experts, topK) = (router.experts, router.topK)
    let rows = stride(from: 0, to: logits.count, by: experts).map { logits[$0..<$0 + experts].map(Double.init) }
    var decision = Decision()
    var load = [Int](repeating: 0, count: experts)
    let chosen = rows.map(chooseExperts)
    decision.indices = chosen.flatMap { $0 }.map { Int32($0) }
    decision.weights = zip(rows, chosen).flatMap(weights)
    for choice in 0..<topK {
      for token in rows.indices {
        let expert = chosen[token][choice]
        if load[expert] < capacity(tokens: rows.count) {
          load[expert] += 1
        } else {
          decision.indices[token * topK + choice] = -1
          decision.weights[token * topK + choice] = 0
        }
      }
    }
    guard !rows.isEmpty else { return decision }
    let tokens = Double(rows.count)
    for expert in 0..<experts {
      let fraction = Double(load[expert]) / (tokens * Double(topK))
      let probability = rows.map { scores($0)[expert] / scores($0).reduce(0, +) }.reduce(0, +) / tokens
      decision.loadBalance += Double(router.loadBalance) * Double(experts) * fraction * probability
    }
    let squares = rows.map { log($0.map(exp).reduce(0, +)) }.map { $0 * $0 }
    decision.z = Double(router.zLoss) * squares.reduce(0, +) / tokens
    return decision
  }

  private func capacity(tokens: Int) -> Int {
    guard let factor = router.capacityFactor else { return tokens }
    return Int((factor * Double(tokens * router.topK) / Double(router.experts)).rounded(.up))
  }

  private func scores(_ logits: [Double]) -> [Double] {
    if case .sigmoid = router.scoring { return logits.map { 1 / (1 + exp(-$0)) } }
    let sum = logits.map(exp).reduce(0, +)
    return logits.map { exp($0) / sum }
  }

  private func chooseExperts(_ logits: [Double]) -> [Int] {
    var keys = router.scoring == .topKThenSoftmax ? logits : scores(logits)
    for (expert, bias) in (bias ?? []).enumerated() { keys[expert] += Double(bias) }
    let order = keys.indices.sorted { keys[$0] > keys[$1] || (keys[$0] == keys[$1] && $0 < $1) }
    return Array(order.prefix(router.topK))
  }

  private func weights(_ logits: [Double], _ chosen: [Int]) -> [Double] {
    let all = scores(logits)
    let sum = chosen.map { all[$0] }.reduce(0, +)
    switch router.scoring {
    case .softmaxThenTopK(renormalised: false): return chosen.map { all[$0] }
    case .softmaxThenTopK(renormalised: true): return chosen.map { all[$0] / sum }
    case .topKThenSoftmax:
      let chosenSum = chosen.map { exp(logits[$0]) }.reduce(0, +)
      return chosen.map { exp(logits[$0]) / chosenSum }
    case .sigmoid(let scale): return chosen.map { Double(scale) * all[$0] / sum }
    }
  }
}

let everyScoring: [TopKRouter.Scoring] = [
  .softmaxThenTopK(renormalised: false), .softmaxThenTopK(renormalised: true), .topKThenSoftmax, .sigmoid(scale: 2.5),
]

/// Floats uniform in ±`spread`.
func uniformFloats(_ count: Int, spread: Float, seed: UInt64) -> [Float] {
  var generator = SplitMix64(seed: seed)
  return (0..<count).map { _ in spread * (2 * generator.nextUnit() - 1) }
}

/// Logits whose rows are shuffled ladders: any two of a token differ by at least `gap`, so small steps keep the choice.
func separatedLogits(tokens: Int, experts: Int, gap: Float = 0.1, seed: UInt64) -> [Float] {
  var generator = SplitMix64(seed: seed)
  return (0..<tokens).flatMap { _ in
    (0..<experts).map { 1.5 * gap * (Float($0) - Float(experts) / 2) + 0.5 * gap * generator.nextUnit() }
      .shuffled(using: &generator)
  }
}
