import CCrosspointKernels
import CrosspointTokens

#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// Channel-separable tokenwise coding: `x_tj ≈ c_j · (low_t + code · step_t)` with `c_j = √(max_t |x_tj|)` over the rows of
/// a group, so that channels of large magnitude do not take the steps of a row for themselves.
/// Source: ZipCache (arXiv 2405.14256), section 4.2.
extension RowCodec {
  /// A channel's largest magnitude counts up to this part of what is typical of rows, so that a single huge row does not
  /// take the precision of all others for itself.
  private static let mostOfTypical: Float = 0x1p6
  /// Elements over their scale stay below this power of two.
  private static let separatedOctaves = 120

  /// Writes the scales of a group's channels (bfloat16); returns one over each, as the receiver will see it, and 0 for a
  /// channel of zeros, whose scale is 0.
  func encodeChannels(of group: RowSource, into out: UnsafeMutableRawPointer) -> UnsafePointer<Float> {
    let scales = scratchRow(0)
    scales.update(repeating: 0, count: hidden)
    var (logarithms, ordinary) = (0.0, 0)
    for index in 0..<group.rows {
      let row = group.row(index, hidden: hidden)
      kernels.fold_magnitudes(scales, row, hidden)
      let most = kernels.largest_magnitude(row, hidden)
      guard most > 0, most.isFinite else { continue }
      logarithms += log2(Double(most))
      ordinary += 1
    }
    let typical = ordinary > 0 ? Float(exp2(logarithms / Double(ordinary))) : 1
    let most = typical * Self.mostOfTypical
    var separated = 0.0
    for channel in 0..<hidden {
      let magnitude = scales[channel]
      let counted = magnitude.isFinite ? min(magnitude, most) : typical
      scales[channel] = counted.squareRoot()
      if magnitude.isFinite, counted > 0 { separated = max(separated, Double(magnitude) / Double(scales[channel])) }
    }
    // All scales as many octaves larger as the elements over them are too large.
    let excess = separated > 0 ? Int(separated.exponent) - Self.separatedOctaves : 0
    if excess > 0 { kernels.scale(scales, Float(sign: .plus, exponent: excess, significand: 1), scales, hidden) }
    kernels.bf16_encode(out, scales, hidden, 1)
    kernels.bf16_decode(scales, out, hidden, 1)
    for channel in 0..<hidden where scales[channel] > 0 { scales[channel] = 1 / scales[channel] }
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
