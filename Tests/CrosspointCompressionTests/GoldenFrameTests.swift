import CrosspointCore
import CrosspointTestSupport
import Testing

@testable import CrosspointCompression

/// Frames of every format as they were when ``GoldenFrame/all`` was written: neither encoder nor decoder may drift, nor
/// both together. `CROSSPOINT_KERNELS` chooses the kernels; all must give the same bits.
@Suite struct GoldenFrameTests {
  @Test func everyFormatHasOne() {
    for format in WireFormat.all {
      let found = GoldenFrame.all.contains { $0.format == format.description && !$0.isUnbiased }
      #expect(found, "\(format) has none; it would be:\n\(GoldenFrame.source(format, isUnbiased: false))")
    }
  }

  @Test(arguments: GoldenFrame.all) func theEncoderWritesIt(golden: GoldenFrame) throws {
    let format = try #require(WireFormat(golden.format))
    let small = try GoldenRows.small.encoded(format, isUnbiased: golden.isUnbiased)
    let large = try GoldenRows.large.encoded(format, isUnbiased: golden.isUnbiased)
    #expect(
      small == golden.frame && digest(large) == golden.largeFrame,
      "it now writes\n\(GoldenFrame.source(format, isUnbiased: golden.isUnbiased))")
  }

  @Test(arguments: GoldenFrame.all) func theDecoderReadsIt(golden: GoldenFrame) throws {
    let format = try #require(WireFormat(golden.format))
    #expect(golden.frame[4] == FrameHeader.version)
    let rows = try GoldenRows.small.decoded(golden.frame)
    #expect(digest(rows) == golden.rows, "\(rows)")
    let large = try GoldenRows.large.decoded(GoldenRows.large.encoded(format, isUnbiased: golden.isUnbiased))
    #expect(digest(large) == golden.largeRows)
  }
}

/// The rows of golden frames: groups that have a mean, one without rows, and importances for those who ask.
struct GoldenRows {
  static let small = GoldenRows(hidden: 6, groups: [4, 0, 1], offset: 100)
  static let large = GoldenRows(hidden: 200, groups: [40, 0, 24], offset: 3)

  let hidden: Int
  let groups: [Int]
  let offset: Float

  func encoded(_ format: WireFormat, isUnbiased: Bool) throws -> [UInt8] {
    let rows = groups.reduce(0, +)
    return try encodeFrame(
      randomFloats(rows * hidden, seed: 80).map { $0 + offset }, hidden: hidden, groups: groups, as: format,
      rounding: isUnbiased ? .unbiased(key: 5) : .nearest, importances: (0..<rows).map { Float($0 * 7 % 5) })
  }

  func decoded(_ frame: [UInt8]) throws -> [Float] { try decodeFrame(frame, hidden: hidden, groups: groups) }
}

/// FNV-1a of bytes.
private func digest(_ bytes: [UInt8]) -> String {
  String(bytes.reduce(0xCBF2_9CE4_8422_2325 as UInt64) { ($0 ^ UInt64($1)) &* 0x100_0000_01B3 }, radix: 16)
}

private func digest(_ floats: [Float]) -> String {
  digest(floats.flatMap { x in (0..<4).map { UInt8(truncatingIfNeeded: x.bitPattern >> (8 * UInt32($0))) } })
}

extension GoldenFrame {
  /// What a line of ``all`` would be with the encoder and decoder as they are.
  static func source(_ format: WireFormat, isUnbiased: Bool) -> String {
    guard let small = try? GoldenRows.small.encoded(format, isUnbiased: isUnbiased),
      let rows = try? GoldenRows.small.decoded(small),
      let large = try? GoldenRows.large.encoded(format, isUnbiased: isUnbiased),
      let largeRows = try? GoldenRows.large.decoded(large)
    else { return "nothing: \(format) fails" }
    let hex = small.map { String(Int($0) + 256, radix: 16).dropFirst() }
    let lines = stride(from: 0, to: hex.count, by: 50).map {
      "        " + hex[$0..<min($0 + 50, hex.count)].joined()
    }
    return """
          GoldenFrame(
            "\(format)"\(isUnbiased ? ", isUnbiased: true" : ""), rows: \"\(digest(rows))\",
            largeFrame: \"\(digest(large))\", largeRows: \"\(digest(largeRows))\",
            \"\"\"
      \(lines.joined(separator: "\n"))
            \"\"\"),
      """
  }
}
