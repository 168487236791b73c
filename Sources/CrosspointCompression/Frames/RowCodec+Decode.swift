import CrosspointCore
import CrosspointTokens

extension RowCodec {
  /// Decodes a whole frame; its row counts must equal those of `groups`.
  ///
  /// Any damaged bit is found. What the targets hold after an error is unspecified.
  /// - Throws: `truncatedFrame` when bytes are missing, `ranksDisagree` where its rows are relative to another memory,
  ///   `corruptFrame` for everything else that is wrong with the frame (all without a rank: the caller knows who sent it),
  ///   `outOfMemory`.
  package func decode(
    _ frame: UnsafeRawBufferPointer, memory: RowMemory? = nil, into groups: [RowTarget]
  ) throws(CrosspointError) {
    let header = try FrameHeader(reading: frame, checksum: checksum)
    let start = FrameHeader.bytes(groups: Int(header.groups))
    try decode(header, UnsafeRawBufferPointer(rebasing: frame[..<start]), frame[start...], memory, into: groups)
  }

  /// Decodes a frame whose header came apart from its body.
  package func decode(
    header: UnsafeRawBufferPointer, body: UnsafeRawBufferPointer, memory: RowMemory? = nil, into groups: [RowTarget]
  ) throws(CrosspointError) {
    try decode(FrameHeader(reading: header, checksum: checksum), header, body[...], memory, into: groups)
  }

  /// The size of the frame that bytes begin with, as its header says.
  func frameBytes(_ bytes: UnsafeRawBufferPointer) throws(CrosspointError) -> Int {
    let header = try FrameHeader(reading: bytes, checksum: checksum)
    let (size, overflow) = FrameHeader.bytes(groups: Int(header.groups)).addingReportingOverflow(
      Int(clamping: header.bodyBytes))
    return overflow ? .max : size
  }

  /// Checks a lossless frame whose body has come straight to where its rows belong.
  package func verify(header bytes: UnsafeRawBufferPointer, in groups: [RowTarget]) throws(CrosspointError) {
    let header = try FrameHeader(reading: bytes, checksum: checksum)
    let format = WireFormat.lossless(of: rows)
    guard header.format == format else { throw .corrupt("format", "\(header.format); expected \(format)") }
    let count = groups.reduce(0) { $0 + $1.rows }
    try check(header, bytes.baseAddress!, bodyBytes: rows.bytes * hidden * count, against: groups)
    var checksum = scatteredChecksum()
    groups.forEachRun(hidden: hidden) { run in checksum.absorb(run.baseAddress!, run.count) }
    try FrameChecksum.compare(header.bodyChecksum, checksum.finish())
  }

  private func decode(
    _ header: FrameHeader, _ headerBytes: UnsafeRawBufferPointer, _ body: Slice<UnsafeRawBufferPointer>,
    _ memory: RowMemory?, into groups: [RowTarget]
  ) throws(CrosspointError) {
    let base = headerBytes.baseAddress!
    try check(header, base, bodyBytes: body.count, against: groups)
    var reader = BodyReader(self, header: base, body: UnsafeRawBufferPointer(rebasing: body), sum: header.bodyChecksum)
    if header.signed { reader.signs = RowRounding.unbiased(key: reader.take(WireFormat.signKeyBytes).get(at: 0)) }
    if header.remembered {
      let fingerprint: UInt64 = reader.take(WireFormat.fingerprintBytes).get(at: 0)
      // A damaged one is damage, not another memory.
      if fingerprint != memory?.fingerprint { try reader.verify() }
      reader.memory = try memory.matching(fingerprint)
    }
    try header.format.coding.decode(groups, from: &reader)
    try reader.verify()
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
      guard !group.centred || (header.format.coding.centres && group.rows > 0) else {
        throw .corrupt("flags", "group \(index) of \(group.rows) rows as \(header.format) cannot be centred")
      }
      rows += group.rows
      if let size = header.format.coding.groupBytes(rows: group.rows, hidden: hidden) { bytes += size }
      if group.centred { bytes += header.format.meanBytes(hidden: hidden) }
    }
    if header.signed {
      guard header.format.coding.rotates || header.format.coding.dithers, rows > 0 else {
        throw .corrupt("flags", "\(rows) rows as \(header.format) cannot have signs of their own")
      }
      bytes += WireFormat.signKeyBytes
    }
    if header.remembered {
      guard header.format.coding.remembers, rows > 0 else {
        throw .corrupt("flags", "\(rows) rows as \(header.format) cannot be relative to a memory")
      }
      bytes += WireFormat.fingerprintBytes
    }
    guard header.rows == rows else { throw .corrupt("rows", "\(header.rows) in all; the groups hold \(rows)") }
    if !header.format.hasFixedRows {
      let most = maximumBodyBytes(header.format, rows: rows, groups: groups.count)
      // What the body starts with is read before anything else looks at its size.
      guard header.bodyBytes >= bytes, header.bodyBytes <= most else {
        throw .corrupt(
          "body bytes", "\(header.bodyBytes); \(rows) rows as \(header.format) take \(bytes) to \(most)")
      }
      bytes = Int(header.bodyBytes)
    }
    guard header.bodyBytes == bytes else {
      throw .corrupt("body bytes", "\(header.bodyBytes); \(rows) rows as \(header.format) take \(bytes)")
    }
    guard bytes <= found else { throw .truncated("\(found) bytes of body; the header announces \(bytes)") }
    guard bytes == found else { throw .corrupt("body bytes", "\(bytes) announced, \(found) found") }
  }
}
