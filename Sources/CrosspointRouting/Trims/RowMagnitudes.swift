import CrosspointTokens

extension TokenBatch {
  /// `[rows]`: ‖x‖₁ of each row, which tells how much a token matters where there is no attention map (MC-MoE, arXiv
  /// 2410.06270, multiplies the two).
  public func rowMagnitudes() -> [Float] {
    (0..<rows).map { row in
      let x = UnsafeRawPointer(base + row * hidden)
      let whole = hidden / 8
      var lanes = SIMD8<Float>.zero
      for step in 0..<whole {
        let values = x.loadUnaligned(fromByteOffset: step * 32, as: SIMD8<Float>.self)
        lanes += values.replacing(with: -values, where: values .< 0)
      }
      var sum = lanes.sum()
      for d in whole * 8..<hidden { sum += abs(base[row * hidden + d]) }
      return sum
    }
  }
}
