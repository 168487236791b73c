import CrosspointCore

/// The fixed part of a frame's header; the groups' row counts and the header's checksum follow it.
/// The layout is that of docs/wire-format.md.
struct FrameHeader {
  static let magic: UInt32 = 0x4650_5843  // "CXPF" in the order of the bytes
  static let version: UInt8 = 3
  static let fixedBytes = 48
  /// Rows have random signs, or noise; the body starts with their key.
  static let signedFlag: UInt8 = 2
  /// Rows are relative to a memory; the body starts with its fingerprint.
  static let rememberedFlag: UInt8 = 4
  /// The top bit of a group's row count: the group is centred and starts with its mean row.
  static let centredBit: UInt32 = 1 << 31
  static let maximumRows = Int(Int32.max)

  var format: WireFormat
  var signed = false
  var remembered = false
  var hidden: UInt32
  var groups: UInt32
  var rows: UInt64
  var bodyBytes: UInt64
  var bodyChecksum: UInt64

  /// Bytes before the body: fixed part, row counts, checksum of both.
  static func bytes(groups: Int) -> Int { fixedBytes + 4 * groups + 8 }

  /// Writes everything but the row counts, which must be there already, and seals both with the header's checksum.
  func write(to frame: UnsafeMutableRawPointer, checksum: (UnsafeRawPointer, Int) -> UInt64) {
    frame.put(Self.magic, at: 0)
    frame.put(Self.version, at: 4)
    frame.put((signed ? Self.signedFlag : 0) | (remembered ? Self.rememberedFlag : 0), at: 5)
    frame.put(format.code, at: 6)
    frame.put(hidden, at: 8)
    frame.put(groups, at: 12)
    frame.put(rows, at: 16)
    frame.put(bodyBytes, at: 24)
    frame.put(bodyBytes, at: 32)
    frame.put(bodyChecksum, at: 40)
    let end = Self.bytes(groups: Int(groups)) - 8
    frame.put(checksum(frame, end), at: end)
  }
}

extension FrameHeader {
  /// Reads a header that its checksum vouches for. Nothing here trusts a number beyond the frame's real length.
  init(reading frame: UnsafeRawBufferPointer, checksum: (UnsafeRawPointer, Int) -> UInt64) throws(CrosspointError) {
    guard frame.count >= Self.bytes(groups: 0), let base = frame.baseAddress else {
      throw .truncated("\(frame.count) bytes; a header takes \(Self.bytes(groups: 0))")
    }
    let magic: UInt32 = base.get(at: 0)
    guard magic == Self.magic else { throw .corrupt("magic", "0x\(hex(magic)); expected 0x\(hex(Self.magic))") }
    let version: UInt8 = base.get(at: 4)
    guard version == Self.version else {
      throw .corrupt("version", "\(version); this build reads \(Self.version): run the same build on every rank")
    }
    groups = base.get(at: 12)
    let start = Self.bytes(groups: Int(groups))
    guard frame.count >= start else {
      throw .truncated("\(frame.count) bytes; the header of \(groups) groups takes \(start)")
    }
    let stored: UInt64 = base.get(at: start - 8)
    let computed = checksum(base, start - 8)
    guard stored == computed else { throw .corrupt("header checksum", "\(hex(stored)); computed \(hex(computed))") }

    let flags: UInt8 = base.get(at: 5)
    guard flags & ~(Self.signedFlag | Self.rememberedFlag) == 0 else {
      throw .corrupt("flags", "0x\(hex(flags)); known: 0x6")
    }
    signed = flags & Self.signedFlag != 0
    remembered = flags & Self.rememberedFlag != 0
    let code: UInt16 = base.get(at: 6)
    guard let format = WireFormat(code: code) else { throw .corrupt("format", "0x\(hex(code)) names no format") }
    self.format = format
    hidden = base.get(at: 8)
    rows = base.get(at: 16)
    bodyBytes = base.get(at: 24)
    let again: UInt64 = base.get(at: 32)
    guard again == bodyBytes else { throw .corrupt("body bytes", "\(bodyBytes), then \(again)") }
    bodyChecksum = base.get(at: 40)
  }

  static func group(_ index: Int, of frame: UnsafeRawPointer) -> (rows: Int, centred: Bool) {
    let word: UInt32 = frame.get(at: fixedBytes + 4 * index)
    return (Int(word & ~centredBit), word & centredBit != 0)
  }

  static func setGroup(_ index: Int, rows: Int, centred: Bool, in frame: UnsafeMutableRawPointer) {
    frame.put(UInt32(rows) | (centred ? centredBit : 0), at: fixedBytes + 4 * index)
  }
}

private func hex(_ value: some BinaryInteger) -> String { String(value, radix: 16) }

extension CrosspointError {
  static func corrupt(_ argument: String, _ message: String) -> CrosspointError {
    CrosspointError(.corruptFrame, operation: "decode", argument: argument, message)
  }

  static func truncated(_ message: String) -> CrosspointError {
    CrosspointError(.truncatedFrame, operation: "decode", argument: "frame", message)
  }
}

extension UnsafeRawPointer {
  @inline(__always)
  func get<T: FixedWidthInteger & BitwiseCopyable>(at offset: Int) -> T {
    T(littleEndian: loadUnaligned(fromByteOffset: offset, as: T.self))
  }
}

extension UnsafeMutableRawPointer {
  @inline(__always)
  func put<T: FixedWidthInteger & BitwiseCopyable>(_ value: T, at offset: Int) {
    storeBytes(of: value.littleEndian, toByteOffset: offset, as: T.self)
  }
}
