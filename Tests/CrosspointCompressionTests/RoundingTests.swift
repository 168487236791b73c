import CrosspointCore
import CrosspointTestSupport
import CrosspointTokens
import Testing

@testable import CrosspointCompression

@Suite struct RoundingTests {
  /// What can round without bias, beside `mixed`, which is `rotated` twice.
  static let unbiased = WireFormat.all.filter { format in
    ["rotated", "entropy", "weighted"].contains { "\(format)".hasPrefix($0) }
  }

  /// Rows of one group each, so that no mean is taken off them.
  private func transport(
    _ x: [Float], hidden: Int, as format: WireFormat, _ rounding: RowRounding
  ) throws -> [Float] {
    let groups = [Int](repeating: 1, count: x.count / hidden)
    let frame = try encodeFrame(x, hidden: hidden, groups: groups, as: format, rounding: rounding)
    return try decodeFrame(frame, hidden: hidden, groups: groups)
  }

  /// The largest distance of the mean of `draws` decoded rows from the row, in standard deviations of that mean.
  private func bias(of x: [Float], as format: WireFormat, _ rounding: RowRounding, draws: Int = 3000) throws -> Double {
    let hidden = x.count
    let rows = (0..<draws).flatMap { _ in x }
    let y = try transport(rows, hidden: hidden, as: format, rounding)
    return (0..<hidden).map { d in
      let values = (0..<draws).map { Double(y[$0 * hidden + d]) }
      let mean = values.reduce(0, +) / Double(draws)
      let variance = values.reduce(0) { $0 + ($1 - mean) * ($1 - mean) } / Double(draws - 1)
      return abs(mean - Double(x[d])) / max(variance / Double(draws), 1e-20).squareRoot()
    }.max()!
  }

  /// Noise of a step leaves no bias at all.
  @Test(arguments: [1, 2, 3]) func theMeanOverTheNoiseIsTheRow(bits: Int) throws {
    for hidden in [96, 256] {
      let x = randomFloats(hidden, seed: 61).map { $0 + 0.3 }
      let bias = try bias(of: x, as: .entropy(bits: Double(bits)), .unbiased(key: 5))
      #expect(bias < 5, "\(hidden): \(bias)")
      #expect(try self.bias(of: x, as: .entropy(bits: Double(bits)), .nearest) > 100, "\(hidden)")
    }
  }

  @Test func otherFormatsRoundToNearest() throws {
    let x = randomFloats(4 * 40, seed: 62)
    for format in WireFormat.all where !Self.unbiased.contains(format) && !"\(format)".hasPrefix("mixed") {
      let y = try transport(x, hidden: 40, as: format, .unbiased(key: 5))
      #expect(firstBitDifference(y, try transport(x, hidden: 40, as: format, .nearest)) == nil, "\(format)")
    }
  }

  @Test func framesDependOnTheKeyAloneAndRowsOnTheirNumber() throws {
    let hidden = 130
    let row = randomFloats(hidden, seed: 64)
    for format in Self.unbiased {
      func frame(_ rounding: RowRounding) throws -> [UInt8] {
        try encodeFrame(row + row, hidden: hidden, groups: [1, 1], as: format, rounding: rounding)
      }
      let first = try frame(.unbiased(key: 3))
      #expect(try first == frame(.unbiased(key: 3)), "\(format)")
      #expect(try first != frame(.unbiased(key: 4)), "\(format)")
      #expect(
        try frame(RowRounding.unbiased(key: 3).keyed(by: 1))
          != frame(RowRounding.unbiased(key: 3).keyed(by: 2)), "\(format)")
      let body = first.dropFirst(FrameHeader.bytes(groups: 2))
      #expect(body.prefix(body.count / 2) != body.suffix(body.count / 2), "\(format)")
      #expect(
        try frame(.nearest) == encodeFrame(row + row, hidden: hidden, groups: [1, 1], as: format))
    }
  }

  /// Mean squared error over energy of `rotated` rows, rounded to nearest, for 1 to 8 bits (docs/wire-format.md).
  private let distortion = [0.363, 0.1175, 0.0345, 0.0095, 0.0025, 0.00064, 0.00016, 0.00004]

  @Test(arguments: 1...8) func edenGivesBackTheLengthAlongTheRow(bits: Int) throws {
    let hidden = 384
    let x = randomFloats(16 * hidden, seed: 65)
    let y = try transport(x, hidden: hidden, as: .rotated(bits: bits), .unbiased(key: 0))
    let nearest = try transport(x, hidden: hidden, as: .rotated(bits: bits), .nearest)
    func along(_ y: [Float], _ row: Int) -> Double {
      let range = row * hidden..<(row + 1) * hidden
      let inner = range.reduce(0.0) { $0 + Double(x[$1]) * Double(y[$1]) }
      return inner / range.reduce(0.0) { $0 + Double(x[$1]) * Double(x[$1]) }
    }
    for row in 0..<16 { #expect(abs(along(y, row) - 1) < 0x1p-8, "\(along(y, row))") }
    // To nearest, rows come out short by the part of their energy that is the error; one alone may be longer by chance.
    let lengths = (0..<16).map { along(nearest, $0) }
    let mean = lengths.reduce(0, +) / 16
    #expect(abs(mean - (1 - distortion[bits - 1])) < 0.01, "\(mean)")
    if bits <= 3 { #expect(mean < 0.985 && lengths.allSatisfy { $0 < 1 }, "\(lengths)") }
  }

  /// Signs and a Hadamard matrix are no uniformly random rotation: what bias is left is a small part of one draw's error.
  @Test(arguments: 1...4) func theMeanOverEdensSignsIsNearTheRow(bits: Int) throws {
    for hidden in [64, 100, 256] {
      var x = randomFloats(hidden, seed: 66)
      x[3] = 4
      let draws = 2000
      let y = try transport(
        (0..<draws).flatMap { _ in x }, hidden: hidden, as: .rotated(bits: bits), .unbiased(key: 2))
      let mean = (0..<hidden).map { d in
        Float((0..<draws).reduce(0.0) { $0 + Double(y[$1 * hidden + d]) } / Double(draws))
      }
      let one = relativeError(Array(y.prefix(hidden)), x)
      #expect(relativeError(mean, x) < 0.15 * one, "\(hidden): \(relativeError(mean, x)) of \(one)")
    }
  }

  @Test func signedRowsKeepTheirGroupsMean() throws {
    let hidden = 96
    let x = randomFloats(80 * hidden, seed: 67).enumerated().map { $1 * 0.1 + Float($0 % hidden % 7) }
    for groups in [[80], [0, 50, 30, 0]] {
      let frame = try encodeFrame(
        x, hidden: hidden, groups: groups, as: .rotated(bits: 3), rounding: .unbiased(key: 8))
      #expect(relativeError(try decodeFrame(frame, hidden: hidden, groups: groups), x) < 0.02)
      let plain = try encodeFrame(x, hidden: hidden, groups: groups, as: .rotated(bits: 3))
      #expect(frame.count == plain.count + WireFormat.signKeyBytes)
    }
  }

  /// Also those of one column, of denormals, and beyond the bound.
  @Test func rowsOfOneValueComeBackUnderEitherRounding() throws {
    for hidden in [1, 8, 100, 130] {
      for value in [Float(0), 1, -3.5, 0x1p-126, 0x1p-149, 1e30, -1e36, .nan, .infinity] {
        let row = [Float](repeating: value, count: hidden)
        for format in Self.unbiased {
          for rounding in [RowRounding.nearest, .unbiased(key: 9)] {
            let y = try transport(row + row, hidden: hidden, as: format, rounding)
            #expect(
              y.allSatisfy { $0.isFinite } == value.isFinite, "\(format), unbiased: \(rounding.isUnbiased), \(value)")
            if value == 0 { #expect(y.allSatisfy { $0 == 0 }, "\(format)") }
            guard value != 0, value.isFinite else { continue }
            // No further off than zeros would be, but for noise whose one step is larger than the row.
            let isNoise = rounding.isUnbiased && format.coding.dithers && format.rate <= 1
            #expect(
              isNoise || relativeError(y, row + row) <= 1, "\(format), unbiased: \(rounding.isUnbiased), \(value)")
          }
        }
      }
    }
  }
}
