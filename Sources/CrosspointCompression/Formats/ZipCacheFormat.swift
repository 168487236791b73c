import CrosspointCore
import Glibc

/// Channel-separable tokenwise coding: `x_tj ≈ c_j · (low_t + code · step_t)` with `c_j = √(max_t |x_tj|)` over the rows of
/// a group, so that channels of large magnitude do not take the steps of a row for themselves.
/// Source: ZipCache (arXiv 2405.14256), section 4.2.
struct ZipCacheFormat: GroupFormat {
  static let usage = "zipcache:BITS (8 or 4)"
  static let members = UniformFormat.members.map { ZipCacheFormat(rows: $0) }
  /// A channel's largest magnitude counts up to this part of what is typical of rows, so that a single huge row does not
  /// take the precision of all others for itself.
  private static let mostOfTypical: Float = 0x1p6
  /// Elements over their scale stay below this power of two.
  private static let separatedOctaves = 120

  /// How rows are coded once their channels are divided by their scales.
  let rows: UniformFormat

  var text: String { "zipcache:\(rows.bits)" }
  var code: UInt16 { 9 | UInt16(rows.bits) << 8 }

  func groupBytes(rows: Int, hidden: Int) -> Int? { maximumBytes(rows: rows, groups: min(1, rows), hidden: hidden) }
  func maximumBytes(rows: Int, groups: Int, hidden: Int) -> Int {
    rows * self.rows.rowBytes(hidden) + groups * 2 * hidden
  }

  func encode(_ group: RowSource, to body: inout BodyWriter) throws(CrosspointError) -> Bool {
    guard group.rows > 0 else { return false }
    let (codec, hidden) = (body.codec, body.hidden)
    let channels = encodeChannels(of: group, into: body.next, codec)
    body.advance(by: 2 * hidden)
    for index in 0..<group.rows {
      let separated = codec.scratchRow(2)
      codec.kernels.multiply(separated, try body.row(index, of: group), channels, hidden)
      rows.encode(separated, into: body.next, codec)
      body.advance(by: rows.rowBytes(hidden))
    }
    return false
  }

  func decode(_ group: RowTarget, isCentred: Bool, from body: inout BodyReader) {
    guard group.rows > 0 else { return }
    let (codec, hidden) = (body.codec, body.hidden)
    let channels = codec.scratchRow(0)
    codec.kernels.bf16_decode(channels, body.take(2 * hidden), hidden, 1)
    for index in 0..<group.rows {
      let coded = body.take(rows.rowBytes(hidden))
      codec.fill(index, of: group) { row in
        rows.decode(coded, into: row, codec)
        codec.kernels.multiply(row, row, channels, hidden)
      }
    }
  }

  /// Writes the scales of a group's channels (bfloat16); returns one over each, as the receiver will see it, and 0 for a
  /// channel of zeros, whose scale is 0.
  private func encodeChannels(
    of group: RowSource, into out: UnsafeMutableRawPointer, _ codec: RowCodec
  ) -> UnsafePointer<Float> {
    let (hidden, scales) = (codec.hidden, codec.scratchRow(0))
    scales.update(repeating: 0, count: hidden)
    var (logarithms, ordinary) = (0.0, 0)
    for index in 0..<group.rows {
      let row = codec.row(index, of: group)
      codec.kernels.fold_magnitudes(scales, row, hidden)
      let most = codec.kernels.largest_magnitude(row, hidden)
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
    if excess > 0 { codec.kernels.scale(scales, Float(sign: .plus, exponent: excess, significand: 1), scales, hidden) }
    codec.kernels.bf16_encode(out, scales, hidden, 1)
    codec.kernels.bf16_decode(scales, out, hidden, 1)
    for channel in 0..<hidden where scales[channel] > 0 { scales[channel] = 1 / scales[channel] }
    return UnsafePointer(scales)
  }
}
