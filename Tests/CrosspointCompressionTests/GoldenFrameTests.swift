import CrosspointCore
import CrosspointTestSupport
import CrosspointTokens
import Foundation
import Testing

@testable import CrosspointCompression

/// Frames of every format as they were when ``GoldenFrame/all`` was written: neither encoder nor decoder may drift, nor
/// both together. `CROSSPOINT_KERNELS` chooses the kernels; all must give the same bits.
@Suite struct GoldenFrameTests {
  @Test func everyFormatHasOne() {
    for format in WireFormat.all { expectOne(format, isUnbiased: false, remembers: false) }
  }

  @Test func soHasEveryFamilyThatRoundsWithoutBiasOrRemembers() {
    for text in ["rotated:2", "mixed:2,4", "entropy:2", "weighted:2"] {
      expectOne(WireFormat(text)!, isUnbiased: true, remembers: false)
    }
    expectOne(WireFormat("entropy:2")!, isUnbiased: false, remembers: true)
    expectOne(WireFormat("weighted:2")!, isUnbiased: true, remembers: true)
  }

  private func expectOne(_ format: WireFormat, isUnbiased: Bool, remembers: Bool) {
    let found = GoldenFrame.all.contains {
      $0.format == format.description && $0.isUnbiased == isUnbiased && $0.remembers == remembers
    }
    #expect(
      found,
      "\(format) has none; it would be:\n\(GoldenFrame.source(format, isUnbiased: isUnbiased, remembers: remembers))")
  }

  @Test func theKernelsAreThoseThatTheEnvironmentNames() {
    guard let asked = ProcessInfo.processInfo.environment["CROSSPOINT_KERNELS"] else { return }
    #expect(String(cString: CrosspointTokens.kernels.name) == asked)
  }

  @Test(arguments: GoldenFrame.all) func theEncoderWritesIt(golden: GoldenFrame) throws {
    let format = try #require(WireFormat(golden.format))
    let small = try GoldenRows.small.encoded(format, isUnbiased: golden.isUnbiased, remembers: golden.remembers)
    let large = try GoldenRows.large.encoded(format, isUnbiased: golden.isUnbiased, remembers: golden.remembers)
    #expect(
      small == golden.frame && digest(large) == golden.largeFrame,
      "it now writes\n\(GoldenFrame.source(format, isUnbiased: golden.isUnbiased, remembers: golden.remembers))")
  }

  @Test(arguments: GoldenFrame.all) func theDecoderReadsIt(golden: GoldenFrame) throws {
    let format = try #require(WireFormat(golden.format))
    #expect(golden.frame[4] == FrameHeader.version)
    let rows = try GoldenRows.small.decoded(golden.frame, remembers: golden.remembers)
    #expect(digest(rows) == golden.rows, "\(rows)")
    let large = try GoldenRows.large.encoded(format, isUnbiased: golden.isUnbiased, remembers: golden.remembers)
    #expect(digest(try GoldenRows.large.decoded(large, remembers: golden.remembers)) == golden.largeRows)
  }
}

/// The rows of golden frames: groups that have a mean, one without rows, importances and labels for those who ask.
struct GoldenRows {
  static let small = GoldenRows(hidden: 6, groups: [4, 0, 1], offset: 100)
  static let large = GoldenRows(hidden: 200, groups: [40, 0, 24], offset: 3)

  let hidden: Int
  let groups: [Int]
  let offset: Float

  /// Three labels and two axes; rows have those labels, others, or none.
  private var memory: RowMemory {
    RowMemory(
      hidden: hidden, labels: [2, 0, 5], anchors: randomFloats(4 * hidden, seed: 81).map { $0 / 2 + offset },
      axes: Reflections(axes: randomFloats(2 * hidden, seed: 82), hidden: hidden),
      weights: randomFloats(hidden, seed: 83).map { 0.5 + abs($0) }, fingerprint: 0x0123_4567_89AB_CDEF)
  }

  func encoded(_ format: WireFormat, isUnbiased: Bool, remembers: Bool) throws -> [UInt8] {
    let rows = groups.reduce(0, +)
    return try encodeFrame(
      randomFloats(rows * hidden, seed: 80).map { $0 + offset }, hidden: hidden, groups: groups, as: format,
      rounding: isUnbiased ? .unbiased(key: 5) : .nearest, importances: (0..<rows).map { Float($0 * 7 % 5) },
      labels: remembers ? (0..<Int32(rows)).map { $0 * 3 % 7 - 1 } : nil, memory: remembers ? memory : nil)
  }

  func decoded(_ frame: [UInt8], remembers: Bool) throws -> [Float] {
    try decodeFrame(frame, hidden: hidden, groups: groups, memory: remembers ? memory : nil)
  }
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
  static func source(_ format: WireFormat, isUnbiased: Bool, remembers: Bool) -> String {
    guard let small = try? GoldenRows.small.encoded(format, isUnbiased: isUnbiased, remembers: remembers),
      let rows = try? GoldenRows.small.decoded(small, remembers: remembers),
      let large = try? GoldenRows.large.encoded(format, isUnbiased: isUnbiased, remembers: remembers),
      let largeRows = try? GoldenRows.large.decoded(large, remembers: remembers)
    else { return "nothing: \(format) fails" }
    let hex = small.map { String(Int($0) + 256, radix: 16).dropFirst() }
    let lines = stride(from: 0, to: hex.count, by: 50).map {
      "        " + hex[$0..<min($0 + 50, hex.count)].joined()
    }
    let kind = (isUnbiased ? ", isUnbiased: true" : "") + (remembers ? ", remembers: true" : "")
    return """
          GoldenFrame(
            "\(format)"\(kind), rows: \"\(digest(rows))\",
            largeFrame: \"\(digest(large))\", largeRows: \"\(digest(largeRows))\",
            \"\"\"
      \(lines.joined(separator: "\n"))
            \"\"\"),
      """
  }
}
