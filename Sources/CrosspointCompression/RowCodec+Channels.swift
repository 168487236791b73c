import CCrosspointKernels
import CrosspointTokens

/// Channel-separable tokenwise coding: `x_tj ≈ c_j · (low_t + code · step_t)` with `c_j = √(max_t |x_tj|)` over the rows of
/// a group, so that channels of large magnitude do not take the steps of a row for themselves.
/// Source: ZipCache (arXiv 2405.14256), section 4.2.
extension RowCodec {
  /// Writes the scales of a group's channels (bfloat16); returns one over each, as the receiver will see it.
  ///
  /// A channel of zeros, or with NaN or infinity, has the scale 1.
  func encodeChannels(of group: RowSource, into out: UnsafeMutableRawPointer) -> UnsafePointer<Float> {
    let scales = scratchRow(0)
    scales.update(repeating: 0, count: hidden)
    for index in 0..<group.rows { kernels.fold_magnitudes(scales, group.row(index, hidden: hidden), hidden) }
    for channel in 0..<hidden {
      let most = scales[channel]
      scales[channel] = most > 0 && most.isFinite ? most.squareRoot() : 1
    }
    kernels.bf16_encode(out, scales, hidden, 1)
    kernels.bf16_decode(scales, out, hidden, 1)
    for channel in 0..<hidden { scales[channel] = 1 / scales[channel] }
    return UnsafePointer(scales)
  }

  func decodeChannels(_ bytes: UnsafeRawPointer) -> UnsafePointer<Float> {
    kernels.bf16_decode(scratchRow(0), bytes, hidden, 1)
    return UnsafePointer(scratchRow(0))
  }

  /// - Parameter key: The row's random numbers, if it is rounded stochastically.
  func encodeSeparated(
    _ out: UnsafeMutableRawPointer, _ row: UnsafePointer<Float>, channels: UnsafePointer<Float>, bits: Int, key: UInt64?
  ) {
    let separated = scratchRow(2)
    kernels.multiply(separated, row, channels, hidden)
    encodeUniform(out, separated, bits: bits, key: key)
  }

  func decodeSeparated(
    _ row: UnsafeMutablePointer<Float>, _ bytes: UnsafeRawPointer, channels: UnsafePointer<Float>, bits: Int
  ) {
    decodeUniform(row, bytes, bits: bits)
    kernels.multiply(row, row, channels, hidden)
  }
}
