import CrosspointCore
import Glibc

/// Rows in the rotated domain: minus the group's mean row, over the row's root mean square, coded by Lloyd-Max.
///
/// The rotation makes the elements of any row nearly Gaussian (central limit), which is what the codebook is made for.
struct RotatedFormat: GroupFormat {
  static let usage = "rotated:BITS (1 to 8)"
  static let members = (1...8).map { RotatedFormat(bits: $0) }
  let bits: Int

  var text: String { "rotated:\(bits)" }
  var code: UInt16 { 7 | UInt16(bits) << 8 }
  var rotates: Bool { true }

  /// A row is its scale and its codes.
  func rowBytes(_ hidden: Int) -> Int { 2 + WireFormat.packedBytes(hidden, bits: bits) }
  func groupBytes(rows: Int, hidden: Int) -> Int? { rows * rowBytes(hidden) }

  func encode(_ group: RowSource, to body: inout BodyWriter) throws(CrosspointError) -> Bool {
    let mean = RotatedMean.encode(of: group, to: &body)
    let coder = RotatedCoder(body.codec, bits: bits)
    for index in 0..<group.rows { try coder.encode(index, of: group, mean: mean, to: &body) }
    return mean != nil
  }

  func decode(_ group: RowTarget, isCentred: Bool, from body: inout BodyReader) {
    let mean = isCentred ? RotatedMean.decode(from: &body) : nil
    let coder = RotatedCoder(body.codec, bits: bits)
    for index in 0..<group.rows {
      body.codec.fill(index, of: group) { coder.decode(into: $0, mean: mean, from: &body) }
    }
  }
}

/// Codes the rows of a group: what they share is found once.
struct RotatedCoder {
  private let codec: RowCodec
  private let book: Codebook
  private let rowBytes: Int

  init(_ codec: RowCodec, bits: Int) {
    (self.codec, book) = (codec, Codebook.ofBits[bits - 1])
    rowBytes = RotatedFormat(bits: bits).rowBytes(codec.hidden)
  }

  /// Appends a row; the next one is fetched from memory meanwhile.
  func encode(
    _ index: Int, of group: RowSource, mean: UnsafePointer<Float>?, to body: inout BodyWriter
  ) throws(CrosspointError) {
    let row = try body.row(index, of: group)
    let ahead =
      index + 1 < group.rows && group.first.type.isFloat
      ? UnsafePointer(group.row(index + 1, hidden: body.hidden).floats) : nil
    encode(row, into: body.next, ahead: ahead, mean: mean, &body.rounding)
    body.advance(by: rowBytes)
  }

  private func encode(
    _ row: UnsafePointer<Float>, into out: UnsafeMutableRawPointer, ahead: UnsafePointer<Float>?,
    mean: UnsafePointer<Float>?, _ rounding: inout RowRounding
  ) {
    let (bits, hidden, rotated) = (book.bits, codec.hidden, codec.scratchRow(1))
    // Centred before it is rotated: one pass then also gives the energy, which the rotation keeps.
    let energy = codec.kernels.centre(rotated, row, mean, hidden)
    if rounding.isUnbiased { codec.kernels.flip_signs(rotated, rotated, hidden, rounding.nextKey()) }
    codec.rotation.rotate(rotated, into: rotated, ahead: ahead)
    let scale = BFloat16(nearest: codec.rootMeanSquare(rotated, energy: energy))
    out.put(scale.bits, at: 0)
    let factor = 1 / scale.value
    guard factor.isFinite, factor > 0 else {
      // Zero (or too small to be divided by) decodes as zeros; NaN and infinity as NaN.
      out.put(scale.value.isFinite ? UInt16(0) : BFloat16.nan.bits, at: 0)
      (out + 2).initializeMemory(as: UInt8.self, repeating: 0, count: rowBytes - 2)
      return
    }
    codec.kernels.lloyd_max_encode(out + 2, rotated, hidden, Int32(bits), factor, book.compander)
    if rounding.isUnbiased { rescale(out, rotated, rms: scale.value) }
  }

  /// The scale with which the decoded row d has the length of the row y along y: `⟨d, y⟩ = |y|²`. Over random rotations the
  /// mean of d is then y (EDEN, theorem 1).
  private func rescale(
    _ out: UnsafeMutableRawPointer, _ rotated: UnsafeMutablePointer<Float>, rms: Float
  ) {
    let (hidden, decoded) = (codec.hidden, codec.scratchRow(2))
    // Squares must stay within the range of a float: rows far from 1 are compared over their root mean square.
    let isModerate = (1e-15...1e15).contains(rms)
    if !isModerate { codec.kernels.scale(rotated, 1 / rms, rotated, hidden) }
    codec.kernels.lloyd_max_decode(decoded, out + 2, hidden, Int32(book.bits), isModerate ? rms : 1, book.levels)
    let ratio = codec.kernels.dot(rotated, rotated, hidden) / codec.kernels.dot(rotated, decoded, hidden)
    guard ratio.isFinite, ratio > 0 else { return }
    out.put(BFloat16(nearest: rms * ratio).bits, at: 0)
  }

  /// - Parameter mean: What was taken off: in the rotated domain; as it is where rows have signs of their own.
  func decode(
    into row: UnsafeMutablePointer<Float>, mean: UnsafePointer<Float>?, from body: inout BodyReader
  ) {
    let hidden = codec.hidden
    let bytes = body.take(rowBytes)
    let scale = BFloat16(bits: bytes.get(at: 0))
    codec.kernels.lloyd_max_decode(
      row, bytes + 2, hidden, Int32(book.bits), scale.value, book.levels)
    let signs = body.signs?.nextKey()
    if let mean, signs == nil { codec.kernels.axpy(row, 1, mean, hidden) }
    codec.rotation.rotateBack(row, into: row)
    guard let signs else { return }
    codec.kernels.flip_signs(row, row, hidden, signs)
    if let mean { codec.kernels.axpy(row, 1, mean, hidden) }
  }
}

/// The mean row of a centred group, in the rotated domain as bfloat16.
enum RotatedMean {
  /// Writes the group's mean row when it pays; returns it as the receiver will see it, not rotated.
  ///
  /// Without its mean a group has the part ρ = 1 − n·|mean|² / Σ|row|² of its energy left, which at the same error is
  /// worth ½ log₂(1/ρ) bits per element; the mean costs 16 / n. So it pays when n · log₂(1/ρ) > 32.
  /// Large groups take the mean of a sample of rows.
  static func encode(of group: RowSource, to body: inout BodyWriter) -> UnsafePointer<Float>? {
    guard group.rows > 1 else { return nil }
    let (codec, hidden) = (body.codec, body.hidden)
    let sum = codec.scratchRow(1)
    sum.update(repeating: 0, count: hidden)
    let sample = MeanSample(of: group.rows)
    let pays = withUnsafeTemporaryAllocation(of: Float.self, capacity: sample.count) { energies in
      var energy = 0.0
      for (place, index) in sample.indices.enumerated() {
        energies[place] = codec.kernels.accumulate(sum, codec.row(index, of: group), hidden)
        energy += Double(energies[place])
      }
      codec.kernels.scale(sum, 1 / Float(sample.count), sum, hidden)
      let common = codec.kernels.dot(sum, sum, hidden)
      let remaining = 1 - Double(sample.count) * Double(common) / energy
      // Not a number for groups of zeros alone or with infinities: they go without.
      return remaining.isFinite && Double(group.rows) * -log2(max(remaining, 1e-12)) > 32
        && MeanSample.isCommon(shorterRows: energies.count { $0 < common / 4 }, of: sample.count)
    }
    guard pays else { return nil }
    codec.rotation.rotate(sum, into: sum)
    codec.kernels.bf16_encode(body.next, sum, hidden, 1)
    let mean = codec.scratchRow(0)
    codec.kernels.bf16_decode(mean, body.next, hidden, 1)
    codec.rotation.rotateBack(mean, into: mean)
    body.advance(by: 2 * hidden)
    return UnsafePointer(mean)
  }

  /// In the rotated domain; as it is where rows have signs of their own.
  static func decode(from body: inout BodyReader) -> UnsafePointer<Float> {
    let mean = body.codec.scratchRow(0)
    body.codec.kernels.bf16_decode(mean, body.take(2 * body.hidden), body.hidden, 1)
    if body.signs != nil { body.codec.rotation.rotateBack(mean, into: mean) }
    return UnsafePointer(mean)
  }
}
