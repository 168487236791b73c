/// Capacity: how many pairs an expert takes, and who comes first.
extension TopKRouter {
  /// Pairs that each expert takes from a batch of `tokens` tokens: `ceil(capacityFactor · T · K / E)`, at most T; T without
  /// a capacity factor (GShard, arXiv 2006.16668, section 2.2). Capacity is per rank: each rank counts its own tokens.
  public func capacity(tokens: Int) -> Int {
    guard let capacityFactor else { return tokens }
    let exact = capacityFactor * Double(tokens) * Double(topK) / Double(experts)
    // The slack keeps products such as 1.1 · 10, which round to a hair above the whole number, from adding a place.
    return Int(min(Double(tokens), (exact * (1 - 1e-12)).rounded(.up)))
  }

  /// Takes first choices in token order, then second choices, and so on; a pair whose expert is full
  /// becomes −1.
  func fill(_ chosen: [Int32], capacity: Int) -> [Int32] {
    var kept = chosen
    var load = [Int](repeating: 0, count: experts)
    for choice in 0..<topK {
      for slot in stride(from: choice, to: kept.count, by: topK) where kept[slot] >= 0 {
        let expert = Int(kept[slot])
        if load[expert] < capacity { load[expert] += 1 } else { kept[slot] = -1 }
      }
    }
    return kept
  }
}
