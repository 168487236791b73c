import CrosspointCore
import CrosspointTokens

#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

extension RowCodec {
  /// Encodes groups of rows (one group per local expert of the receiver) as one frame.
  ///
  /// - Parameters:
  ///   - groups: Rows of `hidden` floats each; groups without rows, and no groups at all, are ordinary. Values are not
  ///     looked at: finite ones beyond the format's ``WireFormat/bound`` may come back as something else.
  ///   - rounding: How values between two of the format's are rounded, with the frame's random numbers.
  ///   - frame: At least ``maximumFrameBytes(_:rows:groups:)`` bytes at any alignment.
  /// - Returns: The size of the frame in bytes.
  /// - Throws: `invalidArgument` when the frame is too small or a group too large, `outOfMemory`.
  public func encode(
    _ groups: [RowSource], as format: WireFormat, rounding: RowRounding = .nearest,
    into frame: UnsafeMutableRawBufferPointer
  ) throws(CrosspointError) -> Int {
    let start = FrameHeader.bytes(groups: groups.count)
    let header = UnsafeMutableRawBufferPointer(rebasing: frame[..<min(start, frame.count)])
    let body = UnsafeMutableRawBufferPointer(rebasing: frame[header.count...])
    return start + (try encode(groups, as: format, rounding: rounding, header: header, body: body))
  }

  /// Encodes groups of rows with the header apart from the body; returns the size of the body.
  ///
  /// - Parameter admitting: Throws `nonFinite` at a row that holds anything else, each looked at just before it is encoded.
  package func encode(
    _ groups: [RowSource], as format: WireFormat, rounding: RowRounding = .nearest,
    admitting values: AdmittedValues = .any, header: UnsafeMutableRawBufferPointer,
    body: UnsafeMutableRawBufferPointer
  ) throws(CrosspointError) -> Int {
    let rows = try rowCount(groups)
    let needed = maximumFrameBytes(format, rows: rows, groups: groups.count)
    guard header.count >= FrameHeader.bytes(groups: groups.count), header.count + body.count >= needed else {
      throw CrosspointError(
        .invalidArgument, operation: "encode", argument: "frame",
        "\(header.count + body.count) bytes; \(rows) rows in \(groups.count) groups as \(format) may take \(needed)")
    }
    let base = header.baseAddress!
    // A frame without rows may come without memory for its body.
    let start = body.baseAddress ?? base
    var checksum = FrameChecksum(of: start, lanes: lanes, kernels: kernels)
    var end = 0
    var rounding = rounding
    let signed = rounding.rounding == .eden && format.rotates && rows > 0
    if signed {
      start.put(rounding.key, at: 0)
      end = WireFormat.signKeyBytes
    }
    if format.hasFixedRows {
      for (index, group) in groups.enumerated() {
        let centred = try encode(
          group, as: format, rounding: &rounding, admitting: values, body: start, end: &end,
          checksum: &checksum)
        FrameHeader.setGroup(index, rows: group.rows, centred: centred, in: base)
      }
    } else {
      end = try encodeEntropy(
        groups, rows: rows, format: format, admitting: values, header: base, body: start)
    }
    FrameHeader(
      format: format, signed: signed, hidden: UInt32(hidden), groups: UInt32(groups.count), rows: UInt64(rows),
      bodyBytes: UInt64(end), bodyChecksum: checksum.finish(end)
    ).write(to: base, checksum: self.checksum)
    return end
  }

  /// Writes the header of the fp32 frame whose body are these rows, one behind the other, without copying them; returns
  /// the size of that body.
  package func seal(
    _ groups: [RowSource], admitting values: AdmittedValues, header: UnsafeMutableRawBufferPointer
  ) throws(CrosspointError) -> Int {
    precondition(header.count >= FrameHeader.bytes(groups: groups.count))
    let rows = try rowCount(groups)
    let base = header.baseAddress!
    var checksum = scatteredChecksum()
    for (index, group) in groups.enumerated() {
      for index in 0..<group.rows {
        let row = group.row(index, hidden: hidden)
        try check(row, values, .fp32)
        checksum.absorb(row, 4 * hidden)
      }
      FrameHeader.setGroup(index, rows: group.rows, centred: false, in: base)
    }
    let bytes = 4 * hidden * rows
    FrameHeader(
      format: .fp32, hidden: UInt32(hidden), groups: UInt32(groups.count), rows: UInt64(rows),
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

  /// Appends a group to the body; says whether it is centred.
  private func encode(
    _ group: RowSource, as format: WireFormat, rounding: inout RowRounding, admitting values: AdmittedValues,
    body: UnsafeMutableRawPointer, end: inout Int, checksum: inout FrameChecksum
  ) throws(CrosspointError) -> Bool {
    let rowBytes = format.rowBytes(hidden: hidden)
    let hidden = hidden
    let kernels = kernels
    @inline(__always)
    func forRow(
      _ index: Int, bytes: Int, _ encodeRow: (UnsafeMutableRawPointer, UnsafePointer<Float>) -> Void
    ) throws(CrosspointError) {
      let row = group.row(index, hidden: hidden)
      try check(row, values, format)
      encodeRow(body + end, row)
      end += bytes
      checksum.advance(to: end)
    }
    func ahead(of index: Int) -> UnsafePointer<Float>? {
      index + 1 < group.rows ? group.row(index + 1, hidden: hidden) : nil
    }
    @inline(__always)
    func forEachRow(
      _ encodeRow: (UnsafeMutableRawPointer, UnsafePointer<Float>) -> Void
    ) throws(CrosspointError) {
      for index in 0..<group.rows { try forRow(index, bytes: rowBytes, encodeRow) }
    }
    switch format.kind {
    case .fp32: try forEachRow { out, row in memcpy(out, row, rowBytes) }
    case .bf16: try forEachRow { out, row in kernels.bf16_encode(out, row, hidden, 1) }
    case .fp16: try forEachRow { out, row in kernels.fp16_encode(out, row, hidden, 1) }
    case .fp8: try forEachRow { out, row in encodeFP8(out, row, key: rounding.nextDither()) }
    case .int8, .int4:
      try forEachRow { out, row in encodeUniform(out, row, bits: format.bits, key: rounding.nextDither()) }
    case .zipCache:
      guard group.rows > 0 else { break }
      let channels = encodeChannels(of: group, into: body + end)
      end += format.meanBytes(hidden: hidden)
      try forEachRow { out, row in
        encodeSeparated(out, row, channels: channels, bits: format.bits, key: rounding.nextDither())
      }
    case .rotated:
      let book = Codebook.ofBits[format.bits - 1]
      let mean = encodeMean(of: group, into: body + end)
      if mean != nil { end += format.meanBytes(hidden: hidden) }
      for index in 0..<group.rows {
        try forRow(index, bytes: rowBytes) { out, row in
          encodeRotated(
            out, row, ahead: ahead(of: index), mean: mean, book: book, &rounding)
        }
      }
      return mean != nil
    case .mixed:
      let mixture = format.mixture!
      let mean = encodeMean(of: group, into: body + end)
      if mean != nil { end += format.meanBytes(hidden: hidden) }
      let bitmap = body + end
      try markImportantRows(of: group, mean: mean, mixture: mixture, into: bitmap)
      end += Mixture.bitmapBytes(rows: group.rows)
      for index in 0..<group.rows {
        let bits = mixture.bits(ofRow: index, in: bitmap)
        try forRow(index, bytes: WireFormat.rotatedRowBytes(hidden, bits: bits)) { out, row in
          encodeRotated(
            out, row, ahead: ahead(of: index), mean: mean,
            book: Codebook.ofBits[bits - 1], &rounding)
        }
      }
      return mean != nil
    case .entropy: preconditionFailure("rows of no fixed size")
    }
    return false
  }
}
