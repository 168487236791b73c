import CCrosspointKernels
import CrosspointTokens

/// Formats with a scale per row or block. Scales travel as bfloat16. A row (block) that holds NaN or infinity decodes to
/// NaN throughout, so that nothing non-finite ever turns finite on the way.
extension RowCodec {
  ///
  /// - Parameter key: The row's random numbers, if it is rounded stochastically.
  func encodeFP8(_ out: UnsafeMutableRawPointer, _ row: UnsafePointer<Float>, key: UInt64?) {
    let blocks = (hidden + WireFormat.fp8Block - 1) / WireFormat.fp8Block
    for block in 0..<blocks {
      let start = block * WireFormat.fp8Block
      let count = min(WireFormat.fp8Block, hidden - start)
      let most = kernels.largest_magnitude(row + start, count)
      let least = max(most / 448, .leastNormalMagnitude)
      let codes = out + 2 * blocks + start
      guard let key, most.isFinite else {
        let scale = most.isFinite ? BFloat16(nearest: least) : .nan
        out.put(scale.bits, at: 2 * block)
        kernels.e4m3_encode(codes, row + start, count, 1 / scale.value)
        continue
      }
      let scale = BFloat16(up: least)
      out.put(scale.bits, at: 2 * block)
      let dithered = scratchRow(1)
      kernels.dither_e4m3(dithered, row + start, count, 1 / scale.value, key &+ UInt64(block))
      kernels.e4m3_encode(codes, dithered, count, 1)
    }
  }

  func decodeFP8(_ row: UnsafeMutablePointer<Float>, _ bytes: UnsafeRawPointer) {
    let blocks = (hidden + WireFormat.fp8Block - 1) / WireFormat.fp8Block
    for block in 0..<blocks {
      let start = block * WireFormat.fp8Block
      let scale = BFloat16(bits: bytes.get(at: 2 * block))
      let count = min(WireFormat.fp8Block, hidden - start)
      kernels.e4m3_decode(row + start, bytes + 2 * blocks + start, count, scale.value)
    }
  }

  /// Even steps from the smallest element: `x ≈ low + code · step`. Low is rounded down and step up, so that the codes
  /// reach over the whole row; the error is at most half a step, or a step with stochastic rounding.
  func encodeUniform(_ out: UnsafeMutableRawPointer, _ row: UnsafePointer<Float>, bits: Int, key: UInt64?) {
    var low: Float = 0
    var high: Float = 0
    let finite = kernels.largest_magnitude(row, hidden).isFinite
    if finite { kernels.smallest_and_largest(row, hidden, &low, &high) }
    let levels = Float((1 << bits) - 1)
    let offset = finite ? BFloat16(down: low) : .nan
    let step = finite ? BFloat16(up: max(high / levels - offset.value / levels, .leastNormalMagnitude)) : .nan
    out.put(offset.bits, at: 0)
    out.put(step.bits, at: 2)
    var row = row
    if let key, finite {
      let dithered = scratchRow(1)
      kernels.dither_uniform(dithered, row, hidden, step.value, key)
      row = UnsafePointer(dithered)
    }
    kernels.uniform_encode(out + 4, row, hidden, Int32(bits), offset.value, step.value)
  }

  func decodeUniform(_ row: UnsafeMutablePointer<Float>, _ bytes: UnsafeRawPointer, bits: Int) {
    let offset = BFloat16(bits: bytes.get(at: 0))
    let step = BFloat16(bits: bytes.get(at: 2))
    kernels.uniform_decode(row, bytes + 4, hidden, Int32(bits), offset.value, step.value)
  }
}
