import CrosspointCore

/// Backward: gradients of weights and losses → gradient of the logits.
extension TopKRouter {
  /// The gradient of `L + auxiliaryScale · decision.losses.total` with respect to the logits.
  ///
  /// With `ŵ` the weights before the scale: `dz = p ⊙ (dp − Σ p dp)`, dp zero off the chosen experts, for plain softmax
  /// weights; `dz = ŵ ⊙ (dw − Σ ŵ dw)` over the chosen ones where weights are renormalised, times `scale (1 − s)` for
  /// sigmoid scores. Choices, counts and bias are constants. Local.
  ///
  /// Under data parallelism each rank's auxiliary loss is a mean over its own T tokens. Leave `auxiliaryScale` at 1 where
  /// gradients are averaged over ranks with equally many tokens; pass T divided by the tokens of all ranks (Σ `tokensPerRow` where rows are weighted) where they are
  /// summed. With counts reduced over ranks the latter gives exactly the loss of the whole batch on one rank.
  ///
  /// - Parameters:
  ///   - decision: what this router's `route` returned.
  ///   - topkWeightGradients: `[T × K]`, ∂L/∂weights; ignored where the index is −1.
  ///   - auxiliaryScale: what the auxiliary losses are multiplied by within the training loss; 0 leaves them out.
  /// - Returns: `[T × E]`.
  /// - Throws: `invalidArgument` if `decision` is another router's or the gradients are not `[T × K]`.
  public func backward(
    _ decision: RoutingDecision, topkWeightGradients: [Float], auxiliaryScale: Float = 1
  ) throws(CrosspointError) -> [Float] {
    var dLogits = [Float](repeating: 0, count: decision.routing.tokens * experts)
    try dLogits.withUnsafeMutableBufferPointer { dLogits throws(CrosspointError) in
      try backward(
        decision, topkWeightGradients: topkWeightGradients, auxiliaryScale: auxiliaryScale, into: dLogits)
    }
    return dLogits
  }

  /// The same into the caller's memory, `[T × E]`, which it replaces.
  /// - Throws: likewise, and for memory of another size.
  public func backward(
    _ decision: RoutingDecision, topkWeightGradients: [Float], auxiliaryScale: Float = 1,
    into dLogits: UnsafeMutableBufferPointer<Float>
  ) throws(CrosspointError) {
    let routing = decision.routing
    guard routing.experts == experts, routing.topK == topK, decision.scores.isSigmoid == isSigmoid,
      zLoss == 0 || decision.scores.logSumExp.count == routing.tokens
    else {
      throw Self.invalid("backward", "decision", "it was made by another router")
    }
    guard topkWeightGradients.count == routing.topkIndices.count else {
      throw Self.invalid(
        "backward", "topkWeightGradients",
        "\(topkWeightGradients.count) gradients for \(routing.tokens) tokens × top-\(topK)")
    }
    guard dLogits.count == routing.tokens * experts else {
      throw Self.invalid(
        "backward", "dLogits", "space for \(dLogits.count) gradients of \(routing.tokens) tokens × \(experts) experts")
    }
    dLogits.update(repeating: 0)
    addWeightGradient(decision, topkWeightGradients, to: dLogits)
    if loadBalance > 0, auxiliaryScale != 0 { addLoadBalanceGradient(decision, scale: auxiliaryScale, to: dLogits) }
    if zLoss > 0, auxiliaryScale != 0 { addZGradient(decision, scale: auxiliaryScale, to: dLogits) }
  }

  private func addWeightGradient(
    _ decision: RoutingDecision, _ gradients: [Float], to dLogits: UnsafeMutableBufferPointer<Float>
  ) {
    let kept = decision.routing.topkIndices
    let scores = decision.scores
    for start in stride(from: 0, to: kept.count, by: topK) {
      let row = start / topK * experts
      var mean: Float = 0
      for slot in start..<start + topK where kept[slot] >= 0 { mean += decision.shares[slot] * gradients[slot] }
      if !isRenormalised {
        for i in row..<row + experts { dLogits[i] -= scores.values[i] * mean }
      }
      for slot in start..<start + topK where decision.chosen[slot] >= 0 {
        let i = row + Int(decision.chosen[slot])
        let gradient = kept[slot] >= 0 ? gradients[slot] : 0
        let slope = scores.isSigmoid ? scale * (1 - scores.values[i]) : 1
        dLogits[i] += decision.shares[slot] * slope * (isRenormalised ? gradient - mean : gradient)
      }
    }
  }
}
