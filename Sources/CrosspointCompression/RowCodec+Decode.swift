import CrosspointCore
import CrosspointTokens

#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

extension RowCodec {
  /// Decodes a whole frame; its row counts must equal those of `groups`.
  ///
  /// Any damaged bit is found. What the targets hold after an error is unspecified.
  /// - Throws: `truncatedFrame` when bytes are missing, `corruptFrame` for everything else that is wrong with the frame
  ///   (both without a rank: the caller knows who sent it), `outOfMemory`.
  public func decode(_ frame: UnsafeRawBufferPointer, into groups: [RowTarget]) throws(CrosspointError) {
    let header = try FrameHeader(reading: frame, checksum: checksum)
    let start = FrameHeader.bytes(groups: Int(header.groups))
    try decode(header, UnsafeRawBufferPointer(rebasing: frame[..<start]), frame[start...], into: groups)
  }

  /// Decodes a frame whose header came apart from its body.
  package func decode(
    header: UnsafeRawBufferPointer, body: UnsafeRawBufferPointer, into groups: [RowTarget]
  ) throws(CrosspointError) {
    try decode(FrameHeader(reading: header, checksum: checksum), header, body[...], into: groups)
  }

  /// Checks a frame of fp32 rows whose body has come straight to where its rows belong.
  package func verify(header bytes: UnsafeRawBufferPointer, in groups: [RowTarget]) throws(CrosspointError) {
    let header = try FrameHeader(reading: bytes, checksum: checksum)
    guard header.format.kind == .fp32 else { throw .corrupt("format", "\(header.format); expected fp32") }
    let rows = groups.reduce(0) { $0 + $1.rows }
    try check(header, bytes.baseAddress!, bodyBytes: 4 * hidden * rows, against: groups)
    var checksum = scatteredChecksum()
    groups.forEachRun(hidden: hidden) { run in checksum.absorb(run.baseAddress!, run.count) }
    try Self.compare(header.bodyChecksum, checksum.finish())
  }

  private func decode(
    _ header: FrameHeader, _ headerBytes: UnsafeRawBufferPointer, _ body: Slice<UnsafeRawBufferPointer>,
    into groups: [RowTarget]
  ) throws(CrosspointError) {
    let base = headerBytes.baseAddress!
    try check(header, base, bodyBytes: body.count, against: groups)
    let body = UnsafeRawBufferPointer(rebasing: body)
    // Without rows there may be no memory.
    let start = body.baseAddress ?? base
    var checksum = FrameChecksum(of: start, lanes: lanes, kernels: kernels)
    if !header.format.hasFixedRows {
      try Self.compare(header.bodyChecksum, checksum.finish(body.count))
      try decodeEntropy(body, of: base, into: groups)
    } else {
      try decodeBody(start, of: base, as: header, into: groups) { checksum.advance(to: $0) }
      try Self.compare(header.bodyChecksum, checksum.finish(body.count))
    }
  }

  private static func compare(_ stored: UInt64, _ computed: UInt64) throws(CrosspointError) {
    guard stored == computed else {
      throw .corrupt(
        "body checksum",
        "\(String(stored, radix: 16)); computed \(String(computed, radix: 16)): bytes changed on the way")
    }
  }

  /// Compares every number of a header with what is expected.
  private func check(
    _ header: FrameHeader, _ base: UnsafeRawPointer, bodyBytes found: Int, against groups: [RowTarget]
  ) throws(CrosspointError) {
    guard header.hidden == hidden else { throw .corrupt("hidden", "\(header.hidden); expected \(hidden)") }
    guard header.groups == groups.count else { throw .corrupt("groups", "\(header.groups); expected \(groups.count)") }
    var rows = 0
    var bytes = 0
    for (index, target) in groups.enumerated() {
      let group = FrameHeader.group(index, of: base)
      guard group.rows == target.rows else {
        throw .corrupt("rows", "group \(index) has \(group.rows); expected \(target.rows)")
      }
      guard !group.centred || (header.format.centres && group.rows > 0) else {
        throw .corrupt("flags", "group \(index) of \(group.rows) rows as \(header.format) cannot be centred")
      }
      rows += group.rows
      bytes += header.format.groupBytes(rows: group.rows, hidden: hidden)
      let hasChannels = header.format.kind == .zipCache && group.rows > 0
      if group.centred || hasChannels { bytes += header.format.meanBytes(hidden: hidden) }
    }
    if header.signed {
      guard header.format.rotates, rows > 0 else {
        throw .corrupt("flags", "\(rows) rows as \(header.format) cannot have signs of their own")
      }
      bytes += WireFormat.signKeyBytes
    }
    guard header.rows == rows else { throw .corrupt("rows", "\(header.rows) in all; the groups hold \(rows)") }
    if !header.format.hasFixedRows {
      let most = maximumBodyBytes(header.format, rows: rows, groups: groups.count)
      guard header.bodyBytes <= most else {
        throw .corrupt("body bytes", "\(header.bodyBytes); \(rows) rows as \(header.format) take at most \(most)")
      }
      bytes = Int(header.bodyBytes)
    }
    guard header.bodyBytes == bytes else {
      throw .corrupt("body bytes", "\(header.bodyBytes); \(rows) rows as \(header.format) take \(bytes)")
    }
    guard bytes <= found else { throw .truncated("\(found) bytes of body; the header announces \(bytes)") }
    guard bytes == found else { throw .corrupt("body bytes", "\(bytes) announced, \(found) found") }
  }

  private func decodeBody(
    _ body: UnsafeRawPointer, of frame: UnsafeRawPointer, as header: FrameHeader, into groups: [RowTarget],
    _ willRead: (Int) -> Void
  ) throws(CrosspointError) {
    let format = header.format
    let rowBytes = format.rowBytes(hidden: hidden)
    let hidden = hidden
    let kernels = kernels
    var offset = 0
    var keys: RowRounding?
    if header.signed {
      willRead(WireFormat.signKeyBytes)
      keys = RowRounding(.eden, key: body.get(at: 0))
      offset = WireFormat.signKeyBytes
    }
    for (index, group) in groups.enumerated() {
      @inline(__always)
      func forRow(
        _ index: Int, bytes: Int, _ decodeRow: (UnsafeMutablePointer<Float>, UnsafeRawPointer) -> Void
      ) {
        willRead(offset + bytes)
        decodeRow(group.base + index * hidden, body + offset)
        offset += bytes
      }
      @inline(__always)
      func forEachRow(_ decodeRow: (UnsafeMutablePointer<Float>, UnsafeRawPointer) -> Void) {
        for index in 0..<group.rows { forRow(index, bytes: rowBytes, decodeRow) }
      }
      switch format.kind {
      case .fp32: forEachRow { row, bytes in memcpy(row, bytes, rowBytes) }
      case .bf16: forEachRow { row, bytes in kernels.bf16_decode(row, bytes, hidden, 1) }
      case .fp16: forEachRow { row, bytes in kernels.fp16_decode(row, bytes, hidden, 1) }
      case .fp8: forEachRow(decodeFP8)
      case .int8, .int4: forEachRow { row, bytes in decodeUniform(row, bytes, bits: format.bits) }
      case .zipCache:
        guard group.rows > 0 else { break }
        let channels = decodeChannels(body + offset)
        offset += format.meanBytes(hidden: hidden)
        forEachRow { row, bytes in decodeSeparated(row, bytes, channels: channels, bits: format.bits) }
      case .rotated, .mixed:
        var mean: UnsafePointer<Float>?
        if FrameHeader.group(index, of: frame).centred {
          mean = UnsafePointer(decodeMean(body + offset))
          offset += format.meanBytes(hidden: hidden)
          if keys != nil { rotation.rotateBack(mean!, count: 1, into: scratchRow(0)) }
        }
        guard let mixture = format.mixture else {
          let book = Codebook.ofBits[format.bits - 1]
          forEachRow { row, bytes in decodeRotated(row, bytes, mean: mean, book: book, signs: keys?.nextKey()) }
          break
        }
        let bitmap = body + offset
        offset += Mixture.bitmapBytes(rows: group.rows)
        willRead(offset)
        try mixture.check(bitmap, rows: group.rows)
        for index in 0..<group.rows {
          let bits = mixture.bits(ofRow: index, in: bitmap)
          forRow(index, bytes: WireFormat.rotatedRowBytes(hidden, bits: bits)) { row, bytes in
            decodeRotated(row, bytes, mean: mean, book: Codebook.ofBits[bits - 1], signs: keys?.nextKey())
          }
        }
      case .entropy: preconditionFailure("rows of no fixed size")
      }
    }
  }
}
