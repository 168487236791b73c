import CrosspointTokens
import Testing

@testable import CrosspointExchange

/// Marks of copies on the wire.
@Suite struct ExpertMarksTests {
  /// Each row is for every third expert, from one that depends on the row on, and for the last one.
  private static func isMarked(_ row: Int, _ expert: Int, of experts: Int) -> Bool {
    expert % 3 == row % 3 || expert == experts - 1
  }

  /// The bits of some of five rows as they travel.
  private static func written(_ rows: Range<Int>, experts: Int) throws -> [UInt8] {
    var marks = ExpertMarks(experts: experts, pool: BufferPool())
    try marks.start(rows: 5)
    for row in 0..<5 {
      for expert in 0..<experts where isMarked(row, expert, of: experts) { marks.mark(row, expert) }
    }
    var block = [UInt8](repeating: 0xff, count: marks.bitBytes(rows: rows.count))
    block.withUnsafeMutableBytes { marks.writeBits(rows, to: $0) }
    return block
  }

  @Test(arguments: [1, 7, 8, 9, 16, 31, 32, 33, 64, 70])
  func aRowTakesABitPerExpertInWholeBytes(experts: Int) throws {
    let block = try Self.written(1..<4, experts: experts)
    #expect(block.count == 3 * ((experts + 7) / 8))

    // They arrive as rows 4, 5 and 6, with something behind.
    var received = ExpertMarks(experts: experts, pool: BufferPool())
    try received.start(rows: 8)
    let isKnown = (block + [0xff]).withUnsafeBytes { received.readBits(4..<7, from: $0, experts: experts) }
    #expect(isKnown)
    try received.number()
    for row in 0..<8 {
      var found: [Int] = []
      received.forEachPair(of: row) { found.append($1) }
      #expect(found == (0..<experts).filter { (4..<7).contains(row) && Self.isMarked(row - 3, $0, of: experts) })
    }
  }

  @Test(arguments: [2, 8, 9, 33, 64])
  func anExpertThatIsNotThereAndABlockThatIsTooShortAreRefused(experts: Int) throws {
    let block = try Self.written(0..<5, experts: experts)
    var received = ExpertMarks(experts: experts, pool: BufferPool())
    try received.start(rows: 5)
    let isThere = block.withUnsafeBytes { received.readBits(0..<5, from: $0, experts: experts - 1) }
    #expect(!isThere)
    let isWhole = block.dropLast().withUnsafeBytes { received.readBits(0..<5, from: $0, experts: experts) }
    #expect(!isWhole)
  }
}
