import CrosspointCore
import CrosspointTestSupport
import Testing

@testable import CrosspointCompression

/// Rows that are far longer than the others leave those as they are.
@Suite struct NeighbourTests {
  static let formats: [WireFormat] =
    [.bf16, .fp8, .int8, .int4, try! .mixed(low: 2, high: 4)] + [1, 4, 8].map { try! .rotated(bits: $0) }
    + [1, 4, 8].map { try! .entropy(bits: $0) }

  /// The error of all rows but the first of a group, with these first ones as they are and made longer.
  private func errors(
    _ format: WireFormat, rows: Int, hidden: Int, first: Int, _ change: (Float) -> Float
  ) throws -> (before: Double, after: Double) {
    let x = normalFloats(rows * hidden, seed: UInt64(rows + first))
    func rest(_ x: [Float]) throws -> Double {
      let y = try roundTrip(x, hidden: hidden, as: format)
      return relativeError(y[(first * hidden)...], x[(first * hidden)...])
    }
    var changed = x
    for index in 0..<first * hidden { changed[index] = change(x[index]) }
    return (try rest(x), try rest(changed))
  }

  /// A mean is estimated from a sample: of a large group the one long row among 256 must not pass for all.
  @Test(arguments: formats, [Float(1e3), 1e6, 1e12])
  func oneLongRowLeavesTheOthers(format: WireFormat, size: Float) throws {
    for rows in [40, 2000] {
      let (before, after) = try errors(format, rows: rows, hidden: 16, first: 1) { $0 * size }
      #expect(after < 1.3 * before + 1e-6, "\(format), \(rows) rows: \(after), \(before) before")
    }
  }

  @Test(arguments: formats) func someEqualLongRowsLeaveTheOthers(format: WireFormat) throws {
    let (before, after) = try errors(format, rows: 512, hidden: 16, first: 30) { _ in 1e6 }
    #expect(after < 1.2 * before + 1e-6, "\(format): \(after), \(before) before")
  }

  /// Unbiased at any size: what comes back has the length of the row along the row.
  @Test(arguments: [Float(1e-30), 1e-22, 1, 1e19, 1e30]) func edenKeepsTheLengthOfRowsOfAnySize(size: Float) throws {
    let hidden = 256
    let x = normalFloats(20 * hidden, seed: 3).map { $0 * size }
    let rounding = RowRounding.unbiased(key: 5)
    let frame = try encodeFrame(x, hidden: hidden, groups: [20], as: .rotated(bits: 1), rounding: rounding)
    let y = try decodeFrame(frame, hidden: hidden, groups: [20])
    for row in 0..<20 {
      let range = row * hidden..<(row + 1) * hidden
      let along = range.reduce(0.0) { $0 + Double(x[$1]) * Double(y[$1]) }
      let energy = range.reduce(0.0) { $0 + Double(x[$1]) * Double(x[$1]) }
      #expect(abs(along / energy - 1) < 0.01, "row \(row) times \(size): \(along / energy)")
    }
  }
}
