import CrosspointCore
import CrosspointTokens

/// For which of a rank's experts each row is, and with what weight, where one copy of a token serves several.
///
/// A row has a bit for each expert of its rank, lowest first. A *pair* is a bit that is set; pairs are numbered row by row
/// and, within a row, by expert. A pair's weight is the expert's share of the rank's: their magnitudes sum to one in a row.
struct ExpertMarks: ~Copyable {
  /// 32-bit words of a row's bits in memory.
  private let words: Int
  /// Bytes of them on the wire, the lowest.
  private let bytes: Int
  private var bits: IndexBuffer
  /// `[rows + 1]`: the first pair of each row.
  private var firstPair: IndexBuffer
  /// `[pairs × 1]`.
  private(set) var weights: TokenBatch
  private let pool: BufferPool

  /// - Parameter experts: the most that a rank holds.
  init(experts: Int, pool: BufferPool) {
    words = (experts + 31) / 32
    bytes = Self.bitBytes(experts: experts)
    self.pool = pool
    bits = IndexBuffer(pool: pool)
    firstPair = IndexBuffer(pool: pool)
    weights = TokenBatch(emptyOfHidden: 1, pool: pool)
  }

  var pairs: Int { weights.rows }

  func pairs(of row: Int) -> Range<Int> { firstPair[row]..<firstPair[row + 1] }

  func pairs(of rows: Range<Int>) -> Range<Int> { firstPair[rows.lowerBound]..<firstPair[rows.upperBound] }

  /// The weights of the pairs of some rows.
  func weights(of rows: Range<Int>) -> UnsafeMutableBufferPointer<Float> {
    UnsafeMutableBufferPointer(rebasing: weights.elements[pairs(of: rows)])
  }

  /// The pair of a row and an expert that is marked.
  func pair(_ row: Int, _ expert: Int) -> Int {
    let word = row * words + expert / 32
    var pair = firstPair[row] + (self[word] & (1 << (expert % 32) - 1)).nonzeroBitCount
    for earlier in row * words..<word { pair += self[earlier].nonzeroBitCount }
    return pair
  }

  func forEachPair(of row: Int, _ body: (_ pair: Int, _ expert: Int) -> Void) {
    var pair = firstPair[row]
    for word in 0..<words {
      var left = self[row * words + word]
      while left != 0 {
        body(pair, word * 32 + left.trailingZeroBitCount)
        left &= left - 1
        pair += 1
      }
    }
  }

  // MARK: - Filling: rows, marks, numbers, weights

  /// Makes space for rows without marks.
  mutating func start(rows: Int) throws(CrosspointError) {
    try bits.resize(rows * words)
    try firstPair.resize(rows + 1)
    bits.base.update(repeating: 0, count: bits.count)
  }

  func mark(_ row: Int, _ expert: Int) {
    let word = bits.base + (row * words + expert / 32)
    word.pointee |= Int32(bitPattern: 1 << UInt32(expert % 32))
  }

  /// Numbers the pairs; their weights are zero.
  mutating func number() throws(CrosspointError) {
    let rows = firstPair.count - 1
    firstPair[0] = 0
    for row in 0..<rows {
      firstPair[row + 1] = (row * words..<(row + 1) * words).reduce(firstPair[row]) { $0 + self[$1].nonzeroBitCount }
    }
    weights = TokenBatch(emptyOfHidden: 1, pool: pool)
    weights = try TokenBatch(uninitializedRows: firstPair[rows], hidden: 1, pool: pool)
    weights.elements.update(repeating: 0)
  }

  // MARK: - On the wire: the bits of some rows, then a number for each of their pairs

  /// The most bytes that a row takes.
  static func bytesPerRow(experts: Int) -> Int { bitBytes(experts: experts) + experts * MemoryLayout<Float>.stride }

  private static func bitBytes(experts: Int) -> Int { (experts + 7) / 8 }

  /// Bytes of the bits of so many rows.
  func bitBytes(rows: Int) -> Int { rows * bytes }

  func writeBits(_ rows: Range<Int>, to block: UnsafeMutableRawBufferPointer) {
    for (place, row) in rows.enumerated() {
      (block.baseAddress! + place * bytes).copyMemory(from: bits(of: row), byteCount: bytes)
    }
  }

  /// Takes the bits of some rows as another rank has written them, up to the end of the block's bits, after ``start(rows:)``.
  /// - Returns: whether all of them name one of `experts` experts.
  func readBits(_ rows: Range<Int>, from block: UnsafeRawBufferPointer, experts: Int) -> Bool {
    guard block.count >= bitBytes(rows: rows.count) else { return false }
    for (place, row) in rows.enumerated() {
      bits(of: row).copyMemory(from: block.baseAddress! + place * bytes, byteCount: bytes)
      for word in 0..<words {
        let known = min(32, experts - word * 32)
        if known < 32, self[row * words + word] >> max(0, known) != 0 { return false }
      }
    }
    return true
  }

  private func bits(of row: Int) -> UnsafeMutableRawPointer { UnsafeMutableRawPointer(bits.base + row * words) }

  private subscript(word: Int) -> UInt32 { UInt32(bitPattern: bits.base[word]) }
}
