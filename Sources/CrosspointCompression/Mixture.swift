import CrosspointCore

/// How the rows of a group are divided between two precisions: a known part of them is coded with more bits.
///
/// How many rows get them follows from the group's rows alone, so both ends know every size; which ones do is the
/// encoder's choice, and travels as one bit per row.
struct Mixture: Hashable, Sendable {
  /// The parts of a group's rows that may have more bits.
  static let fractions = [0.5, 0.25, 0.125, 0.0625]
  static let defaultFraction = 0.25

  /// Bits per element of most rows.
  let low: Int
  /// Bits per element of the others.
  let high: Int
  /// Their number is that of all rows over two to this power.
  private let shift: Int

  /// `nil` unless `1 ≤ low < high ≤ 8` and the fraction is one of ``fractions``.
  init?(low: Int, high: Int, fraction: Double) {
    guard (1...8).contains(low), (1...8).contains(high), low < high,
      let index = Self.fractions.firstIndex(of: fraction)
    else { return nil }
    self.low = low
    self.high = high
    shift = index + 1
  }

  /// `LOW,HIGH` or `LOW,HIGH,FRACTION`.
  init?(_ text: Substring) {
    let parts = text.split(separator: ",", omittingEmptySubsequences: false)
    guard parts.count == 2 || parts.count == 3, let low = Int(parts[0]), let high = Int(parts[1]),
      let fraction = parts.count == 2 ? Self.defaultFraction : Double(parts[2])
    else { return nil }
    self.init(low: low, high: high, fraction: fraction)
  }

  /// Undoes ``code``.
  init?(code: UInt16) {
    self.init(low: Int(code & 7) + 1, high: Int(code >> 3 & 7) + 1, fraction: Self.fractions[Int(code >> 6 & 3)])
  }

  /// Eight bits that stand for it: low − 1, high − 1 and the index of the fraction, lowest bits first.
  var code: UInt16 { UInt16(low - 1) | UInt16(high - 1) << 3 | UInt16(shift - 1) << 6 }

  /// The part of the rows that has more bits.
  var fraction: Double { Self.fractions[shift - 1] }

  /// Bits per element on average.
  var rate: Double { Double(low) + Double(high - low) * fraction }

  var description: String { "\(low),\(high)" + (fraction == Self.defaultFraction ? "" : ",\(fraction)") }

  /// How many of a group's rows have more bits: its fraction of them, rounded half up.
  func highRows(of rows: Int) -> Int { (rows + (1 << (shift - 1))) >> shift }

  /// Bits per element of a row, by the bitmap of its group.
  func bits(ofRow row: Int, in bitmap: UnsafeRawPointer) -> Int {
    bitmap.load(fromByteOffset: row / 8, as: UInt8.self) >> UInt8(row % 8) & 1 == 1 ? high : low
  }

  /// Refuses a bitmap that marks another number of rows than a group of this size has, or rows beyond them: then sizes of
  /// rows would not be those that the header was checked against.
  func check(_ bitmap: UnsafeRawPointer, rows: Int) throws(CrosspointError) {
    let bytes = UnsafeRawBufferPointer(start: bitmap, count: Self.bitmapBytes(rows: rows))
    let marked = bytes.reduce(0) { $0 + $1.nonzeroBitCount }
    let beyond = rows % 8 == 0 ? 0 : bytes[bytes.count - 1] >> UInt8(rows % 8)
    guard beyond == 0, marked == highRows(of: rows) else {
      throw .corrupt(
        "bitmap", "\(marked) of \(rows) rows marked; expected \(highRows(of: rows)), none beyond the last row")
    }
  }

  /// Bytes of the bits that say which rows have more.
  static func bitmapBytes(rows: Int) -> Int { (rows + 7) / 8 }

  /// Bytes of a group's rows, and of the bits that say which have more.
  func groupBytes(rows: Int, hidden: Int) -> Int {
    Self.bitmapBytes(rows: rows) + bytes(rows: rows, highRows: highRows(of: rows), hidden: hidden)
  }

  /// The most that `rows` rows can take in `groups` groups with rows.
  func maximumBytes(rows: Int, groups: Int, hidden: Int) -> Int {
    let most = min(rows, (rows + groups * (1 << (shift - 1))) >> shift)
    return rows / 8 + groups + bytes(rows: rows, highRows: most, hidden: hidden)
  }

  private func bytes(rows: Int, highRows: Int, hidden: Int) -> Int {
    let (few, many) = (WireFormat.rotatedRowBytes(hidden, bits: low), WireFormat.rotatedRowBytes(hidden, bits: high))
    return highRows * many + (rows - highRows) * few
  }
}
