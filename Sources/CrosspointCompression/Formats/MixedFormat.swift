import CrosspointCore
import CrosspointTokens

/// Rotated rows of two precisions: a known part of each group's rows, those of most importance, is coded with more bits.
///
/// How many rows get them follows from the group's rows alone, so both ends know every size; which ones do is the
/// encoder's choice, and travels as one bit per row.
///
/// Sources: a higher precision for the tokens that matter and a lower one for the rest is that of ZipCache (arXiv 2405.14256)
/// and EdgeQAT (arXiv 2402.10787); there they matter by attention, here by their router's weight.
struct MixedFormat: GroupFormat {
  static let usage = "mixed:LOW,HIGH[,FRACTION] (1 to 8 bits, fewer first; 0.5, 0.25, 0.125 or 0.0625)"
  static let members = ["mixed:1,8,0.0625", "mixed:2,4", "mixed:3,6,0.5"].map { named($0)! }
  /// The parts of a group's rows that may have more bits.
  private static let fractions = [0.5, 0.25, 0.125, 0.0625]
  private static let defaultFraction = 0.25

  /// Most rows.
  let low: RotatedFormat
  /// The others.
  let high: RotatedFormat
  /// Their number is that of all rows over two to this power.
  private let shift: Int

  /// `nil` unless `1 ≤ low < high ≤ 8` and the fraction is one of ``fractions``.
  private init?(low: Int, high: Int, fraction: Double) {
    guard (1...8).contains(low), (1...8).contains(high), low < high,
      let index = Self.fractions.firstIndex(of: fraction)
    else { return nil }
    (self.low, self.high) = (RotatedFormat(bits: low), RotatedFormat(bits: high))
    shift = index + 1
  }

  static func named(_ text: String) -> MixedFormat? {
    guard text.hasPrefix("mixed:") else { return nil }
    let parts = text.dropFirst(6).split(separator: ",", omittingEmptySubsequences: false)
    guard parts.count == 2 || parts.count == 3, let low = Int(parts[0]), let high = Int(parts[1]),
      let fraction = parts.count == 2 ? defaultFraction : Double(parts[2])
    else { return nil }
    return MixedFormat(low: low, high: high, fraction: fraction)
  }

  /// Low − 1, high − 1 and the index of the fraction, lowest bits first.
  var code: UInt16 { 10 | UInt16(low.bits - 1) << 8 | UInt16(high.bits - 1) << 11 | UInt16(shift - 1) << 14 }

  static func coded(_ code: UInt16) -> MixedFormat? {
    guard code & 0xFF == 10 else { return nil }
    return MixedFormat(
      low: Int(code >> 8 & 7) + 1, high: Int(code >> 11 & 7) + 1, fraction: fractions[Int(code >> 14)])
  }

  private var fraction: Double { Self.fractions[shift - 1] }
  var text: String { "mixed:\(low.bits),\(high.bits)" + (fraction == Self.defaultFraction ? "" : ",\(fraction)") }
  /// Bits per element on average.
  var rate: Double { low.rate + (high.rate - low.rate) * fraction }
  var rotates: Bool { true }
  var weighsRows: Bool { true }

  /// How many of a group's rows have more bits: its fraction of them, rounded half up.
  private func highRows(of rows: Int) -> Int { (rows + (1 << (shift - 1))) >> shift }

  /// Bytes of the bits that say which rows have more.
  private func bitmapBytes(rows: Int) -> Int { (rows + 7) / 8 }

  func groupBytes(rows: Int, hidden: Int) -> Int? {
    bitmapBytes(rows: rows) + bytes(rows: rows, highRows: highRows(of: rows), hidden: hidden)
  }

  func maximumBytes(rows: Int, groups: Int, hidden: Int) -> Int {
    let most = min(rows, (rows + groups * (1 << (shift - 1))) >> shift)
    return rows / 8 + groups + bytes(rows: rows, highRows: most, hidden: hidden)
  }

  private func bytes(rows: Int, highRows: Int, hidden: Int) -> Int {
    highRows * high.rowBytes(hidden) + (rows - highRows) * low.rowBytes(hidden)
  }

  func encode(_ group: RowSource, to body: inout BodyWriter) throws(CrosspointError) -> Bool {
    let mean = RotatedMean.encode(of: group, to: &body)
    let bitmap = body.next
    try markImportantRows(of: group, mean: mean, into: bitmap, body.codec)
    body.advance(by: bitmapBytes(rows: group.rows))
    let (few, many) = (RotatedCoder(body.codec, bits: low.bits), RotatedCoder(body.codec, bits: high.bits))
    for index in 0..<group.rows {
      try (isHigh(index, in: bitmap) ? many : few).encode(index, of: group, mean: mean, to: &body)
    }
    return mean != nil
  }

  func decode(_ group: RowTarget, isCentred: Bool, from body: inout BodyReader) throws(CrosspointError) {
    let mean = isCentred ? RotatedMean.decode(from: &body) : nil
    let bitmap = body.take(bitmapBytes(rows: group.rows))
    try check(bitmap, rows: group.rows)
    let (few, many) = (RotatedCoder(body.codec, bits: low.bits), RotatedCoder(body.codec, bits: high.bits))
    for index in 0..<group.rows {
      let coder = isHigh(index, in: bitmap) ? many : few
      body.codec.fill(index, of: group) { coder.decode(into: $0, mean: mean, from: &body) }
    }
  }

  /// Whether a row has more bits, by the bitmap of its group.
  private func isHigh(_ row: Int, in bitmap: UnsafeRawPointer) -> Bool {
    bitmap.load(fromByteOffset: row / 8, as: UInt8.self) >> UInt8(row % 8) & 1 == 1
  }

  /// Refuses a bitmap that marks another number of rows than a group of this size has, or rows beyond them: then sizes of
  /// rows would not be those that the header was checked against.
  private func check(_ bitmap: UnsafeRawPointer, rows: Int) throws(CrosspointError) {
    let bytes = UnsafeRawBufferPointer(start: bitmap, count: bitmapBytes(rows: rows))
    let marked = bytes.reduce(0) { $0 + $1.nonzeroBitCount }
    let beyond = rows % 8 == 0 ? 0 : bytes[bytes.count - 1] >> UInt8(rows % 8)
    guard beyond == 0, marked == highRows(of: rows) else {
      throw .corrupt(
        "bitmap", "\(marked) of \(rows) rows marked; expected \(highRows(of: rows)), none beyond the last row")
    }
  }

  /// Writes the bitmap of a group: one bit per row, set for its most important rows.
  ///
  /// First come those of largest importance by what their source says, if it says any; among equals those of which most
  /// energy is left without the group's mean: that makes the squared error of the group the least. Then the earlier ones.
  /// NaN counts as zero.
  private func markImportantRows(
    of group: RowSource, mean: UnsafePointer<Float>?, into bitmap: UnsafeMutableRawPointer, _ codec: RowCodec
  ) throws(CrosspointError) {
    let buffer = try codec.pool.lease(bytes: group.rows * MemoryLayout<UInt64>.stride)
    defer { codec.pool.release(buffer) }
    let keys = UnsafeMutableBufferPointer(
      start: buffer.base.assumingMemoryBound(to: UInt64.self), count: group.rows)
    // Floats without their sign are in the order of their bits.
    func order(_ value: Float) -> UInt64 { value.isNaN ? 0 : UInt64(value.magnitude.bitPattern) }
    for index in keys.indices {
      let row = codec.row(index, of: group)
      let energy = codec.kernels.centre(codec.scratchRow(1), row, mean, codec.hidden)
      keys[index] = order(group.importances?[index] ?? 0) << 32 | order(energy)
    }

    // The largest threshold that enough rows reach, bit by bit; those that just reach it share what is left.
    let wanted = highRows(of: group.rows)
    var threshold: UInt64 = 0
    for bit in (UInt64(0)..<64).reversed() {
      let trial = threshold | 1 << bit
      if keys.count(where: { $0 >= trial }) >= wanted { threshold = trial }
    }
    var equals = wanted - keys.count { $0 > threshold }

    let bytes = UnsafeMutableRawBufferPointer(start: bitmap, count: bitmapBytes(rows: group.rows))
    bytes.initializeMemory(as: UInt8.self, repeating: 0)
    for (index, key) in keys.enumerated() where key >= threshold {
      if key == threshold {
        guard equals > 0 else { continue }
        equals -= 1
      }
      bytes[index / 8] |= 1 << UInt8(index % 8)
    }
  }
}
