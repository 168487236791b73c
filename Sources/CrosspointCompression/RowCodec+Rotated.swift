import CCrosspointKernels
import CrosspointTokens

#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// Rows in the rotated domain: minus the group's mean row, over the row's root mean square, coded by Lloyd-Max.
///
/// The rotation makes the elements of any row nearly Gaussian (central limit), which is what the codebook is made for.
extension RowCodec {
  /// Writes the group's mean row (rotated, as bfloat16) when it pays; returns it as the receiver will see it, not
  /// rotated.
  ///
  /// Without its mean a group has the part ρ = 1 − n·|mean|² / Σ|row|² of its energy left, which at the same error is
  /// worth ½ log₂(1/ρ) bits per element; the mean costs 16 / n. So it pays when n · log₂(1/ρ) > 32.
  /// Large groups take the mean of a sample of rows.
  func encodeMean(of group: RowSource, into out: UnsafeMutableRawPointer) -> UnsafePointer<Float>? {
    guard group.rows > 1 else { return nil }
    let sum = scratchRow(1)
    sum.update(repeating: 0, count: hidden)
    let sample = MeanSample(of: group.rows)
    let pays = withUnsafeTemporaryAllocation(of: Float.self, capacity: sample.count) { energies in
      var energy = 0.0
      for (place, index) in sample.indices.enumerated() {
        energies[place] = kernels.accumulate(sum, group.row(index, hidden: hidden), hidden)
        energy += Double(energies[place])
      }
      kernels.scale(sum, 1 / Float(sample.count), sum, hidden)
      let common = kernels.dot(sum, sum, hidden)
      let remaining = 1 - Double(sample.count) * Double(common) / energy
      // Not a number for groups of zeros alone or with infinities: they go without.
      return remaining.isFinite && Double(group.rows) * -log2(max(remaining, 1e-12)) > 32
        && Self.isCommon(shorterRows: energies.count { $0 < common / 4 }, of: sample.count)
    }
    guard pays else { return nil }
    rotation.rotate(sum, into: sum)
    kernels.bf16_encode(out, sum, hidden, 1)
    let mean = decodeMean(out)
    rotation.rotateBack(mean, count: 1, into: mean)
    return UnsafePointer(mean)
  }

  /// Whether a mean is that of its rows, and not of a few that are far longer than the rest, which would get an error in
  /// proportion to these: at most one row in eight may be shorter than half of it.
  static func isCommon(shorterRows: Int, of rows: Int) -> Bool { 8 * shorterRows <= rows }

  func decodeMean(_ bytes: UnsafeRawPointer) -> UnsafeMutablePointer<Float> {
    kernels.bf16_decode(scratchRow(0), bytes, hidden, 1)
    return scratchRow(0)
  }

  /// - Parameter ahead: The row that is encoded next, if there is one.
  func encodeRotated(
    _ out: UnsafeMutableRawPointer, _ row: UnsafePointer<Float>, ahead: UnsafePointer<Float>?,
    mean: UnsafePointer<Float>?, book: Codebook, _ rounding: inout RowRounding
  ) {
    let rotated = scratchRow(1)
    // Centred before it is rotated: one pass then also gives the energy, which the rotation keeps.
    let energy = kernels.centre(rotated, row, mean, hidden)
    if rounding.rounding == .eden { kernels.flip_signs(rotated, rotated, hidden, rounding.nextKey()) }
    rotation.rotate(rotated, into: rotated, ahead: ahead)
    let key = rounding.nextDither()
    let scale =
      key == nil ? BFloat16(nearest: rootMeanSquare(rotated, energy: energy)) : coveringScale(rotated, book)
    out.put(scale.bits, at: 0)
    let factor = 1 / scale.value
    guard factor.isFinite, factor > 0 else {
      // Zero (or too small to be divided by) decodes as zeros; NaN and infinity as NaN.
      out.put(scale.value.isFinite ? UInt16(0) : BFloat16.nan.bits, at: 0)
      memset(out + 2, 0, WireFormat.packedBytes(hidden, bits: book.bits))
      return
    }
    let bits = Int32(book.bits)
    guard let key else {
      kernels.lloyd_max_encode(out + 2, rotated, hidden, bits, factor, book.compander)
      if rounding.rounding == .eden { rescale(out, rotated, rms: scale.value, book: book) }
      return
    }
    kernels.dither_levels(rotated, rotated, hidden, factor, book.levels, 1 << (book.bits - 1), key)
    kernels.lloyd_max_encode(out + 2, rotated, hidden, bits, 1, book.compander)
  }

  /// The scale whose outermost level is the largest element: rounding at random needs a level on either side.
  private func coveringScale(_ row: UnsafeMutablePointer<Float>, _ book: Codebook) -> BFloat16 {
    let most = kernels.largest_magnitude(row, hidden)
    return most.isFinite ? BFloat16(up: most / book.outermostLevel) : .nan
  }

  /// The scale with which the decoded row d has the length of the row y along y: `⟨d, y⟩ = |y|²`. Over random rotations the
  /// mean of d is then y (EDEN, theorem 1).
  private func rescale(
    _ out: UnsafeMutableRawPointer, _ rotated: UnsafeMutablePointer<Float>, rms: Float, book: Codebook
  ) {
    let decoded = scratchRow(2)
    // Squares must stay within the range of a float: rows far from 1 are compared over their root mean square.
    let isModerate = (1e-15...1e15).contains(rms)
    if !isModerate { kernels.scale(rotated, 1 / rms, rotated, hidden) }
    kernels.lloyd_max_decode(decoded, out + 2, hidden, Int32(book.bits), isModerate ? rms : 1, book.levels)
    let ratio = kernels.dot(rotated, rotated, hidden) / kernels.dot(rotated, decoded, hidden)
    guard ratio.isFinite, ratio > 0 else { return }
    out.put(BFloat16(nearest: rms * ratio).bits, at: 0)
  }

  /// - Parameters:
  ///   - mean: What was taken off: in the rotated domain; as it is where rows have signs of their own.
  ///   - signs: The key of the row's signs, if it has any.
  func decodeRotated(
    _ row: UnsafeMutablePointer<Float>, _ bytes: UnsafeRawPointer, mean: UnsafePointer<Float>?, book: Codebook,
    signs: UInt64?
  ) {
    let scale = BFloat16(bits: bytes.get(at: 0))
    kernels.lloyd_max_decode(row, bytes + 2, hidden, Int32(book.bits), scale.value, book.levels)
    if let mean, signs == nil { kernels.axpy(row, 1, mean, hidden) }
    rotation.rotateBack(row, count: 1, into: row)
    guard let signs else { return }
    kernels.flip_signs(row, row, hidden, signs)
    if let mean { kernels.axpy(row, 1, mean, hidden) }
  }

  /// √(mean x²); NaN when an element is NaN or infinite. Rows whose squares leave the range of a float are brought to one.
  func rootMeanSquare(_ row: UnsafeMutablePointer<Float>, energy: Float) -> Float {
    if energy.isFinite, energy > 1e-30 { return (energy / Float(hidden)).squareRoot() }
    let most = kernels.largest_magnitude(row, hidden)
    guard most.isFinite else { return .nan }
    guard most >= .leastNormalMagnitude else { return 0 }
    let scaled = scratchRow(2)
    let factor = max(1 / most, .leastNormalMagnitude)
    kernels.scale(scaled, factor, row, hidden)
    return (kernels.dot(scaled, scaled, hidden) / Float(hidden)).squareRoot() / factor
  }
}
