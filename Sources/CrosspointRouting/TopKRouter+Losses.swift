import CrosspointCore

/// The auxiliary losses and their gradients with respect to logits.
extension TopKRouter {
  func measureLosses(_ decision: RoutingDecision) -> RoutingLosses {
    let tokens = decision.routing.tokens
    var losses = RoutingLosses()
    let total = decision.totalWeight
    guard total > 0 else { return losses }
    if loadBalance > 0 {
      let (pull, scores) = (decision.pull, decision.scores)
      var sum = 0.0
      for token in 0..<tokens {
        sum += decision.weight(token) * Double(meanPull(pull, scores, token: token).mean)
      }
      losses.loadBalance = sum
    }
    if zLoss > 0 {
      var sum = 0.0
      for (token, value) in decision.scores.logSumExp.enumerated() {
        sum += decision.weight(token) * Double(value) * Double(value)
      }
      losses.z = Double(zLoss) * sum / total
    }
    return losses
  }

  /// `dz_t = p_t ⊙ (g − Σ_j p_tj g_j)` with `g = c E f / T`; times `1 − s` for sigmoid scores, where `p = s / Σ s`, and
  /// times the row's weight, T being their sum.
  func addLoadBalanceGradient(
    _ decision: RoutingDecision, scale: Float, to dLogits: UnsafeMutableBufferPointer<Float>
  ) {
    let (pull, scores) = (decision.pull, decision.scores)
    for token in 0..<decision.routing.tokens {
      let row = token * experts
      let (mean, sum) = meanPull(pull, scores, token: token)
      let weight = scale * Float(decision.weight(token))
      for expert in 0..<experts {
        let score = scores.values[row + expert]
        let slope: Float = scores.isSigmoid ? 1 - score : 1
        let share: Float = score / sum
        dLogits[row + expert] += weight * share * slope * (pull[expert] - mean)
      }
    }
  }

  /// `dz_t = 2 c_z lse_t softmax(z_t) / T`, times the row's weight, T being their sum.
  func addZGradient(_ decision: RoutingDecision, scale: Float, to dLogits: UnsafeMutableBufferPointer<Float>) {
    let tokens = decision.routing.tokens
    let softmax = decision.scores.softmax
    let total = decision.totalWeight
    guard total > 0 else { return }
    for token in 0..<tokens {
      let share = Float(decision.weight(token) / total)
      let factor = 2 * scale * zLoss * decision.scores.logSumExp[token] * share
      for i in token * experts..<(token + 1) * experts { dLogits[i] += factor * softmax[i] }
    }
  }

  /// Derives ``RoutingDecision/pull`` from the load.
  func measurePull(_ decision: inout RoutingDecision) {
    let pairs = decision.load[experts] * Double(topK)
    let total = decision.totalWeight
    decision.pull.refill(with: 0, count: experts)
    guard total > 0 else { return }
    let factor = Double(loadBalance) * Double(experts) / (pairs * total)
    for expert in 0..<experts { decision.pull[expert] = Float(factor * decision.load[expert]) }
  }

  /// `Σ_j p_j g_j` of one token, and the sum by which its scores become p.
  private func meanPull(_ pull: [Float], _ scores: Scores, token: Int) -> (mean: Float, sum: Float) {
    let row = token * experts
    var weighted: Float = 0
    var sum: Float = scores.isSigmoid ? .leastNormalMagnitude : 0  // sigmoid scores may all be zero
    for expert in 0..<experts {
      weighted += scores.values[row + expert] * pull[expert]
      sum += scores.values[row + expert]
    }
    return (weighted / sum, sum)
  }
}

extension RoutingDecision {
  /// Adds this rank's kept pairs per expert and its rows, weighted, to the load.
  mutating func countLoad() {
    for slot in routing.topkIndices.indices where routing.topkIndices[slot] >= 0 {
      load[Int(routing.topkIndices[slot])] += weight(slot / routing.topK)
    }
    load[routing.experts] += totalWeight
  }
}
