import CrosspointTokens

extension TokenBatch {
  /// `[rows]`: ‖x‖₁ of each row, which tells how much a token matters where there is no attention map (MC-MoE, arXiv
  /// 2410.06270, multiplies the two).
  package func rowMagnitudes() -> [Float] {
    var magnitudes: [Float] = []
    rowMagnitudes(into: &magnitudes)
    return magnitudes
  }

  /// The same in the memory of an array.
  package func rowMagnitudes(into magnitudes: inout [Float]) {
    magnitudes.removeAll(keepingCapacity: true)
    for row in 0..<rows {
      let x = UnsafeRawPointer(base + row * hidden)
      let whole = hidden / 8
      var lanes = SIMD8<Float>.zero
      for step in 0..<whole {
        let values = x.loadUnaligned(fromByteOffset: step * 32, as: SIMD8<Float>.self)
        lanes += values.replacing(with: -values, where: values .< 0)
      }
      var sum = lanes.sum()
      for d in whole * 8..<hidden { sum += abs(base[row * hidden + d]) }
      magnitudes.append(sum)
    }
  }
}
