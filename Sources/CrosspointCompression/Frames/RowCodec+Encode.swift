import CrosspointCore
import CrosspointTokens

extension RowCodec {
  /// Encodes groups of rows (one group per local expert of the receiver) as one frame.
  ///
  /// - Parameters:
  ///   - groups: Rows of `hidden` floats each; groups without rows, and no groups at all, are ordinary. Values are not
  ///     looked at: finite ones beyond the format's ``WireFormat/bound`` may come back as something else.
  ///   - rounding: How values between two of the format's are rounded, with the frame's random numbers.
  ///   - memory: What the receiver remembers too; nothing of it is used by formats that do not say so.
  ///   - frame: At least ``maximumFrameBytes(_:rows:groups:)`` bytes at any alignment.
  /// - Returns: The size of the frame in bytes.
  /// - Throws: `invalidArgument` when the frame is too small or a group too large, `outOfMemory`.
  package func encode(
    _ groups: [RowSource], as format: WireFormat, rounding: RowRounding = .nearest, memory: RowMemory? = nil,
    into frame: UnsafeMutableRawBufferPointer
  ) throws(CrosspointError) -> Int {
    let start = FrameHeader.bytes(groups: groups.count)
    let header = UnsafeMutableRawBufferPointer(rebasing: frame[..<min(start, frame.count)])
    let body = UnsafeMutableRawBufferPointer(rebasing: frame[header.count...])
    return start + (try encode(groups, as: format, rounding: rounding, memory: memory, header: header, body: body))
  }

  /// Encodes groups of rows with the header apart from the body, each in memory for the most that it may take; returns the
  /// size of the body.
  ///
  /// - Parameter admitting: Throws `nonFinite` at a row that holds anything else, each looked at just before it is encoded.
  package func encode(
    _ groups: [RowSource], as format: WireFormat, rounding: RowRounding = .nearest, memory: RowMemory? = nil,
    admitting values: AdmittedValues = .any, header: UnsafeMutableRawBufferPointer,
    body: UnsafeMutableRawBufferPointer
  ) throws(CrosspointError) -> Int {
    let rows = try rowCount(groups)
    let (start, needed) = (
      FrameHeader.bytes(groups: groups.count), maximumBodyBytes(format, rows: rows, groups: groups.count)
    )
    guard header.count >= start, body.count >= needed else {
      throw CrosspointError(
        .invalidArgument, operation: "encode", argument: "frame",
        "\(header.count) and \(body.count) bytes; \(rows) rows in \(groups.count) groups as \(format) may take \(start) and \(needed)"
      )
    }
    let base = header.baseAddress!
    // A frame without rows may come without memory for its body.
    let memory = format.coding.remembers && rows > 0 ? memory : nil
    var writer = BodyWriter(self, format, rounding, memory, values, header: base, start: body.baseAddress ?? base)
    let signed = rows > 0 && rounding.isUnbiased && (format.coding.rotates || format.coding.dithers)
    if signed {
      writer.next.put(rounding.key, at: 0)
      writer.advance(by: WireFormat.signKeyBytes)
    }
    if let memory {
      writer.next.put(memory.fingerprint, at: 0)
      writer.advance(by: WireFormat.fingerprintBytes)
    }
    try format.coding.encode(groups, to: &writer)
    FrameHeader(
      format: format, signed: signed, remembered: memory != nil, hidden: UInt32(hidden), groups: UInt32(groups.count),
      rows: UInt64(rows),
      bodyBytes: UInt64(writer.count), bodyChecksum: writer.sum()
    ).write(to: base, checksum: checksum)
    return writer.count
  }

  /// Writes the header of the lossless frame whose body are these rows, one behind the other, without copying them; returns
  /// the size of that body.
  package func seal(
    _ groups: [RowSource], admitting values: AdmittedValues, header: UnsafeMutableRawBufferPointer
  ) throws(CrosspointError) -> Int {
    precondition(header.count >= FrameHeader.bytes(groups: groups.count))
    let count = try rowCount(groups)
    let base = header.baseAddress!
    var checksum = scatteredChecksum()
    for (index, group) in groups.enumerated() {
      for index in 0..<group.rows {
        let row = group.row(index, hidden: hidden)
        try values.check(row, hidden, bound: .greatestFiniteMagnitude, .fp32)
        checksum.absorb(row.base, rows.bytes * hidden)
      }
      FrameHeader.setGroup(index, rows: group.rows, centred: false, in: base)
    }
    let bytes = rows.bytes * hidden * count
    FrameHeader(
      format: .lossless(of: rows), hidden: UInt32(hidden), groups: UInt32(groups.count), rows: UInt64(count),
      bodyBytes: UInt64(bytes), bodyChecksum: checksum.finish()
    ).write(to: base, checksum: self.checksum)
    return bytes
  }

  private func rowCount(_ groups: [RowSource]) throws(CrosspointError) -> Int {
    var rows = 0
    for (index, group) in groups.enumerated() {
      guard group.rows <= FrameHeader.maximumRows else {
        throw CrosspointError(
          .invalidArgument, operation: "encode", argument: "groups",
          "group \(index) has \(group.rows) rows; at most \(FrameHeader.maximumRows)")
      }
      rows += group.rows
    }
    return rows
  }
}
