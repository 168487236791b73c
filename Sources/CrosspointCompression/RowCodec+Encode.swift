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
  ///   - groups: Rows of `hidden` floats each; groups without rows, and no groups at all, are ordinary.
  ///   - frame: At least ``maximumFrameBytes(_:rows:groups:)`` bytes at any alignment.
  /// - Returns: The size of the frame in bytes.
  /// - Throws: `invalidArgument` when the frame is too small or a group too large, `outOfMemory`.
  public func encode(
    _ groups: [RowSource], as format: WireFormat, packing: Packing, into frame: UnsafeMutableRawBufferPointer
  ) throws(CrosspointError) -> Int {
    var rows = 0
    for (index, group) in groups.enumerated() {
      guard group.rows <= FrameHeader.maximumRows else {
        throw CrosspointError(
          .invalidArgument, operation: "encode", argument: "groups",
          "group \(index) has \(group.rows) rows; at most \(FrameHeader.maximumRows)")
      }
      rows += group.rows
    }
    let needed = maximumFrameBytes(format, rows: rows, groups: groups.count)
    guard frame.count >= needed, let base = frame.baseAddress else {
      throw CrosspointError(
        .invalidArgument, operation: "encode", argument: "frame",
        "\(frame.count) bytes; \(rows) rows in \(groups.count) groups as \(format) may take \(needed)")
    }

    let start = FrameHeader.bytes(groups: groups.count)
    let body = base + start
    var checksum = FrameChecksum(of: body, lanes: lanes, kernels: kernels)
    var end = 0
    for (index, group) in groups.enumerated() {
      let centred = encode(group, as: format, body: body, end: &end, checksum: &checksum)
      FrameHeader.setGroup(index, rows: group.rows, centred: centred, in: base)
    }
    var sum = checksum.finish(end)
    let packedBytes = try pack(body, end, format: format, packing: packing)
    if let packedBytes { sum = self.checksum(body, packedBytes) }

    let header = FrameHeader(
      format: format, packed: packedBytes != nil, hidden: UInt32(hidden), groups: UInt32(groups.count),
      rows: UInt64(rows), bodyBytes: UInt64(packedBytes ?? end), rawBytes: UInt64(end), bodyChecksum: sum)
    header.write(to: base, checksum: self.checksum)
    return start + (packedBytes ?? end)
  }

  /// Appends a group to the body; says whether it is centred.
  private func encode(
    _ group: RowSource, as format: WireFormat, body: UnsafeMutableRawPointer, end: inout Int,
    checksum: inout FrameChecksum
  ) -> Bool {
    let rowBytes = format.rowBytes(hidden: hidden)
    let hidden = hidden
    let kernels = kernels
    @inline(__always)
    func forEachRow(_ encodeRow: (UnsafeMutableRawPointer, UnsafePointer<Float>) -> Void) {
      for index in 0..<group.rows {
        encodeRow(body + end, group.row(index, hidden: hidden))
        end += rowBytes
        checksum.advance(to: end)
      }
    }
    switch format.kind {
    case .fp32: forEachRow { out, row in memcpy(out, row, rowBytes) }
    case .bf16: forEachRow { out, row in kernels.bf16_encode(out, row, hidden, 1) }
    case .fp16: forEachRow { out, row in kernels.fp16_encode(out, row, hidden, 1) }
    case .fp8: forEachRow(encodeFP8)
    case .int8, .int4: forEachRow { out, row in encodeUniform(out, row, bits: format.bits) }
    case .rotated:
      let book = Codebook.ofBits[format.bits - 1]
      let mean = encodeMean(of: group, into: body + end)
      if mean != nil { end += format.meanBytes(hidden: hidden) }
      forEachRow { out, row in encodeRotated(out, row, mean: mean, book: book) }
      return mean != nil
    }
    return false
  }
}
