import CrosspointCore
import CrosspointTokens
import Glibc

/// Forward: scores → the k best → capacity → weights.
extension TopKRouter {
  /// The decision without its losses.
  func choose(
    _ logits: UnsafeBufferPointer<Float>, _ bias: SelectionBias?, _ traits: RowTraits,
    into decision: inout RoutingDecision
  ) throws(CrosspointError) {
    try check(logits, bias, traits)
    decision.tokensPerRow = traits.tokensPerRow
    decision.scores.score(logits, experts: experts, isSigmoid: isSigmoid, forZLoss: zLoss > 0)
    select(logits, bias, &decision)
    share(logits, &decision)
    decision.routing.begin(decision.chosen, topK: topK, experts: experts)
    decision.isTrimmed = trim != nil
    if let trim { try apply(trim, traits, to: &decision) }
    decision.trimmed = decision.routing.topkIndices.count { $0 < 0 }
    if decision.trimmed > 0, case .pruning = trim {
      decision.chosen.refill(with: decision.routing.topkIndices)
      share(logits, &decision)
    }
    fill(&decision.routing)
    var missing = 0
    for slot in decision.shares.indices {
      if decision.routing.topkIndices[slot] < 0 {
        missing += 1
      } else {
        decision.routing.topkWeights[slot] = scale * decision.shares[slot]
      }
    }
    decision.overflow = missing - decision.trimmed
  }

  private func check(
    _ logits: UnsafeBufferPointer<Float>, _ bias: SelectionBias?, _ traits: RowTraits
  ) throws(CrosspointError) {
    guard logits.count.isMultiple(of: experts) else {
      throw Self.invalid("route", "logits", "\(logits.count) floats do not form rows of \(experts) experts")
    }
    if let bias, bias.values.count != experts {
      throw Self.invalid("route", "bias", "it holds \(bias.values.count) values for \(experts) experts")
    }
    let rows = logits.count / experts
    guard traits.tokensPerRow.isEmpty || traits.tokensPerRow.count == rows,
      traits.tokensPerRow.allSatisfy({ $0 >= 0 })
    else {
      throw Self.invalid(
        "route", "tokensPerRow",
        "\(rows) rows need as many counts, none negative; \(traits.tokensPerRow.count) are given")
    }
    guard let base = logits.baseAddress else { return }
    let bad = kernels.first_nonfinite(base, logits.count)
    guard bad == logits.count else {
      throw CrosspointError(
        .nonFinite, operation: "route", argument: "logits",
        "token \(bad / experts) has logit \(logits[bad]) for expert \(bad % experts)")
    }
  }

  var isSigmoid: Bool {
    if case .sigmoid = scoring { true } else { false }
  }

  /// Whether the weights of a token sum to ``scale``.
  var isRenormalised: Bool {
    if case .softmaxThenTopK(renormalised: false) = scoring { false } else { true }
  }

  /// What the weights of a token are multiplied by.
  var scale: Float {
    if case .sigmoid(let scale) = scoring { scale } else { 1 }
  }

  /// Chooses the k experts of the largest keys, in falling order.
  ///
  /// Every scoring rises with the logit, so logits are the keys unless there is a bias to add or a group to score.
  private func select(
    _ logits: UnsafeBufferPointer<Float>, _ bias: SelectionBias?, _ decision: inout RoutingDecision
  ) {
    let isPlain = bias == nil && groupLimit == nil && groupPrice == nil
    if !isPlain {
      decision.scratch.keys.resize(logits.count)
      decision.scratch.keys.withUnsafeMutableBufferPointer {
        if scoring == .topKThenSoftmax {
          _ = $0.update(fromContentsOf: logits)
        } else {
          _ = $0.update(fromContentsOf: decision.scores.values)
        }
      }
      if let bias {
        for i in decision.scratch.keys.indices { decision.scratch.keys[i] += bias.values[i % experts] }
      }
      if let groupLimit { mask(&decision.scratch, groupLimit) }
      if let groupPrice { mask(&decision.scratch, groupPrice) }
    }
    decision.chosen.refill(with: 0, count: logits.count / experts * topK)
    decision.scratch.best.refill(with: 0, count: topK)
    decision.scratch.keys.withUnsafeBufferPointer { keys in
      let keys = isPlain ? logits : keys
      decision.chosen.withUnsafeMutableBufferPointer { chosen in
        decision.scratch.best.withUnsafeMutableBufferPointer { best in
          for start in stride(from: 0, to: chosen.count, by: topK) {
            selectRow(
              UnsafeBufferPointer(rebasing: keys[start / topK * experts..<(start / topK + 1) * experts]),
              best: best, into: UnsafeMutableBufferPointer(rebasing: chosen[start..<start + topK]))
          }
        }
      }
    }
  }

  /// One token: keeps the k best so far in order; a later expert passes only those that it strictly exceeds.
  private func selectRow(
    _ keys: UnsafeBufferPointer<Float>, best: UnsafeMutableBufferPointer<Float>,
    into chosen: UnsafeMutableBufferPointer<Int32>
  ) {
    for expert in 0..<experts {
      let key = keys[expert]
      var place = min(expert, topK)
      if place == topK && key <= best[topK - 1] { continue }
      while place > 0 && key > best[place - 1] {
        place -= 1
        if place + 1 < topK {
          best[place + 1] = best[place]
          chosen[place + 1] = chosen[place]
        }
      }
      best[place] = key
      chosen[place] = Int32(truncatingIfNeeded: expert)  // experts fit: checked at init
    }
  }

  /// The weights before scale and capacity, 0 where nothing is chosen. Renormalised softmax weights are a softmax over the
  /// chosen logits, so they stay exact where the scores themselves underflow.
  private func share(_ logits: UnsafeBufferPointer<Float>, _ decision: inout RoutingDecision) {
    decision.shares.refill(with: 0, count: decision.chosen.count)
    decision.shares.withUnsafeMutableBufferPointer {
      share(decision.chosen, logits, decision.scores.values, into: $0)
    }
  }

  private func share(
    _ chosen: [Int32], _ logits: UnsafeBufferPointer<Float>, _ scores: [Float],
    into shares: UnsafeMutableBufferPointer<Float>
  ) {
    for start in stride(from: 0, to: chosen.count, by: topK) {
      let row = start / topK * experts
      let slots = start..<start + topK
      if !isRenormalised || isSigmoid {
        for slot in slots where chosen[slot] >= 0 { shares[slot] = scores[row + Int(chosen[slot])] }
      } else {
        var largest = -Float.infinity
        for slot in slots where chosen[slot] >= 0 { largest = max(largest, logits[row + Int(chosen[slot])]) }
        for slot in slots where chosen[slot] >= 0 { shares[slot] = exp(logits[row + Int(chosen[slot])] - largest) }
      }
      guard isRenormalised else { continue }
      var sum = Float.leastNormalMagnitude  // sigmoid scores may all be zero
      for slot in slots { sum += shares[slot] }
      for slot in slots { shares[slot] /= sum }
    }
  }
}
