/// Capacity: how many pairs an expert takes, and who comes first.
extension TopKRouter {
  /// Pairs that each expert takes from a batch of `tokens` tokens: `ceil(capacityFactor · T · K / E)`, at most T; T without
  /// a capacity factor (GShard, arXiv 2006.16668, section 2.2). Capacity is per rank: each rank counts its own tokens.
  package func capacity(tokens: Int) -> Int {
    guard let capacityFactor else { return tokens }
    let exact = capacityFactor * Double(tokens) * Double(topK) / Double(experts)
    // The slack keeps products such as 1.1 · 10, which round to a hair above the whole number, from adding a place.
    return Int(min(Double(tokens), (exact * (1 - 1e-12)).rounded(.up)))
  }

  /// Takes first choices in token order, then second choices, and so on, and counts them; a pair whose expert is full
  /// becomes −1.
  func fill(_ routing: inout Routing) {
    let capacity = capacity(tokens: routing.tokens)
    for choice in 0..<topK {
      for slot in stride(from: choice, to: routing.topkIndices.count, by: topK) where routing.topkIndices[slot] >= 0 {
        let expert = Int(routing.topkIndices[slot])
        if routing.tokensPerExpert[expert] < capacity {
          routing.tokensPerExpert[expert] += 1
        } else {
          routing.topkIndices[slot] = -1
        }
      }
    }
  }
}
