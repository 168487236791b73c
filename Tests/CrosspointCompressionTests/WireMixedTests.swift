import CrosspointCore
import CrosspointTestSupport
import CrosspointTokens
import Testing

@testable import CrosspointCompression

@Suite struct WireMixedTests {
  static let fractions = [0.5, 0.25, 0.125, 0.0625]
  static let hidden = 40
  static let groups = [7, 0, 1, 2, 33, 8]
  static let rows = groups.reduce(0, +)
  static let shifts: [Float] = [0, 3]

  /// Rows of many sizes; shifted ones have a mean that pays.
  static func uneven(shift: Float, seed: UInt64) -> [Float] {
    let sizes = randomFloats(rows, seed: seed + 1)
    return randomFloats(rows * hidden, seed: seed).enumerated().map {
      $1 * (0.5 + sizes[$0 / hidden].magnitude) + shift
    }
  }

  /// The number of rows that a fraction of `rows` is.
  static func share(_ fraction: Double, of rows: Int) -> Int {
    Int((Double(rows) * fraction).rounded(.toNearestOrAwayFromZero))
  }

  /// The most important rows of each group, by sorting; `frame` says which groups are centred.
  static func reference(_ importances: [Float], _ x: [Float], _ frame: [UInt8], fraction: Double) -> Set<Int> {
    var important: Set<Int> = []
    var first = 0
    for (group, count) in groups.enumerated() {
      let isCentred = frame.withUnsafeBytes { FrameHeader.group(group, of: $0.baseAddress!).centred }
      let mean = (0..<hidden).map { column in
        isCentred ? (first..<first + count).reduce(0) { $0 + x[$1 * hidden + column] } / Float(count) : 0
      }
      func energy(_ row: Int) -> Float {
        (0..<hidden).reduce(0) { $0 + (x[row * hidden + $1] - mean[$1]) * (x[row * hidden + $1] - mean[$1]) }
      }
      func weight(_ row: Int) -> Float { importances[row].isNaN ? 0 : importances[row].magnitude }
      let order = (first..<first + count).sorted { (weight($0), energy($0), $1) > (weight($1), energy($1), $0) }
      important.formUnion(order.prefix(share(fraction, of: count)))
      first += count
    }
    return important
  }

  /// Every row is, bit for bit, what the one or the other precision alone would have made of it.
  @Test(arguments: fractions) func importantRowsHaveTheHigherPrecisionAndTheOthersTheLower(fraction: Double) throws {
    var generator = SplitMix64(seed: 50)
    var importances = (0..<Self.rows).map { _ in Float(generator.next() % 6) / 4 - 0.5 }  // signs and ties
    importances[3] = .nan
    importances[20] = .infinity
    importances[21] = -0.0
    importances[22] = .leastNonzeroMagnitude
    for rounding in [RowRounding.nearest, .unbiased(key: 5)] {
      for shift in Self.shifts {
        let x = Self.uneven(shift: shift, seed: 51)
        func encoded(_ format: WireFormat) throws -> [UInt8] {
          try encodeFrame(
            x, hidden: Self.hidden, groups: Self.groups, as: format, rounding: rounding,
            importances: importances)
        }
        func decoded(_ frame: [UInt8]) throws -> [Float] {
          try decodeFrame(frame, hidden: Self.hidden, groups: Self.groups)
        }
        let frame = try encoded(.mixed(low: 2, high: 5, fraction: fraction))
        let important = Self.reference(importances, x, frame, fraction: fraction)
        #expect(important.contains(20) && !important.contains(3))
        let mixed = try decoded(frame)
        let (low, high) = (try decoded(encoded(.rotated(bits: 2))), try decoded(encoded(.rotated(bits: 5))))
        for row in 0..<Self.rows {
          let range = row * Self.hidden..<(row + 1) * Self.hidden
          let expected = (important.contains(row) ? high : low)[range]
          #expect(
            firstBitDifference(Array(mixed[range]), Array(expected)) == nil,
            "unbiased: \(rounding.isUnbiased), shift \(shift), row \(row)")
        }
      }
    }
  }

  /// Rows that are alike to their source: those get more bits of which centring leaves most.
  @Test func rowsThatNobodyWeighsGetWhatLeavesTheLeastError() throws {
    let (hidden, groups) = (64, [16])
    for shift in Self.shifts {
      let sizes = (0..<16).map { Float(($0 * 5) % 16 + 1) / 8 }
      let x = randomFloats(16 * hidden, seed: 52).enumerated().map { $1 * sizes[$0 / hidden] + shift }
      let mixed = try roundTrip(x, hidden: hidden, groups: groups, as: .mixed(low: 1, high: 6))
      let equal = try encodeFrame(
        x, hidden: hidden, groups: groups, as: .mixed(low: 1, high: 6), importances: Array(repeating: 0.3, count: 16))
      #expect(try decodeFrame(equal, hidden: hidden, groups: groups) == mixed)
      let (low, high) = (
        try roundTrip(x, hidden: hidden, groups: groups, as: .rotated(bits: 1)),
        try roundTrip(x, hidden: hidden, groups: groups, as: .rotated(bits: 6))
      )
      func isFrom(_ y: [Float], _ row: Int) -> Bool {
        let range = row * hidden..<(row + 1) * hidden
        return firstBitDifference(Array(mixed[range]), Array(y[range])) == nil
      }
      let largest = (0..<16).sorted { sizes[$0] > sizes[$1] }.prefix(4)
      for row in 0..<16 { #expect(isFrom(largest.contains(row) ? high : low, row), "shift \(shift), row \(row)") }
    }
  }

  @Test func ofEqualRowsTheEarlierOnesHaveMoreBits() throws {
    let hidden = 16
    let x = (0..<20).flatMap { _ in randomFloats(hidden, seed: 55) }
    let frame = try encodeFrame(x, hidden: hidden, groups: [20], as: .mixed(low: 1, high: 2))
    let bitmap = FrameHeader.bytes(groups: 1) + 2 * hidden
    #expect(frame[bitmap..<bitmap + 3].elementsEqual([0b11111, 0, 0]))
  }

  @Test(arguments: fractions) func bytesFollowFromTheNumberOfRows(fraction: Double) throws {
    let hidden = 24
    let format = try WireFormat.mixed(low: 1, high: 7, fraction: fraction)
    func bytes(_ rows: Int) -> Int {
      let high = Self.share(fraction, of: rows)
      return (rows + 7) / 8 + high * (2 + 7 * 3) + (rows - high) * (2 + 3)
    }
    let codec = try RowCodec(hidden: hidden, seed: 7, pool: BufferPool())
    for rows in 0..<40 {
      // Rows that alternate in sign: no mean.
      let x = randomFloats(2 * rows * hidden, seed: 53)
      let groups = [rows, 0, 1].map { min($0, 2 * rows) }
      let frame = try encodeFrame(
        Array(x.prefix(groups.reduce(0, +) * hidden)), hidden: hidden, groups: groups, as: format, codec: codec)
      #expect(frame.count == FrameHeader.bytes(groups: 3) + groups.reduce(0) { $0 + bytes($1) })
    }
    // What a frame may take is never exceeded, however rows are grouped.
    var generator = SplitMix64(seed: 54)
    for _ in 0..<500 {
      let groups = (0..<Int(generator.next() % 6)).map { _ in Int(generator.next() % 12) }
      let used = groups.count { $0 > 0 }
      let most = codec.maximumBodyBytes(format, rows: groups.reduce(0, +), groups: groups.count)
      #expect(groups.reduce(0) { $0 + bytes($1) } + used * 2 * hidden + WireFormat.signKeyBytes <= most)
    }
  }

  /// A frame whose checksums are right and whose bitmap is not: another number of rows, or one that does not exist.
  @Test func aBitmapOfAnotherSizeIsRefused() throws {
    let (hidden, rows) = (16, 11)
    let codec = try RowCodec(hidden: hidden, seed: 7, pool: BufferPool())
    let zeros = [Float](repeating: 0, count: rows * hidden)
    let frame = try encodeFrame(zeros, hidden: hidden, groups: [rows], as: .mixed(low: 2, high: 4), codec: codec)
    let start = FrameHeader.bytes(groups: 1)
    #expect(frame[start] == 0b111 && frame[start + 1] == 0)
    for (first, second) in [(0, 0), (0b11, 0), (0b1111, 0), (0b11, 8), (0xFF, 0xFF)] as [(UInt8, UInt8)] {
      var changed = frame
      (changed[start], changed[start + 1]) = (first, second)
      reseal(&changed, groups: 1, codec)
      #expect(throws: CrosspointError.self) {
        try decodeFrame(changed, hidden: hidden, groups: [rows], codec: codec)
      }
      #expect(FrameTests.damage(changed, codec, groups: [rows]) == .corruptFrame)
    }
    // Another choice of as many rows is a frame like any other.
    var other = frame
    (other[start], other[start + 1]) = (0b1, 0b110)
    reseal(&other, groups: 1, codec)
    #expect(try decodeFrame(other, hidden: hidden, groups: [rows], codec: codec) == zeros)
  }
}
