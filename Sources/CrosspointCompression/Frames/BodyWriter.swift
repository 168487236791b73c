import CrosspointCore
import CrosspointTokens

/// The body of a frame while it is written: formats append to it, and its checksum is taken while bytes are in the cache.
struct BodyWriter {
  let codec: RowCodec
  let hidden: Int
  /// The frame's header, which says of each group whether it is centred.
  let header: UnsafeMutableRawPointer
  var rounding: RowRounding
  /// What the receiver remembers, for formats that make use of it.
  let memory: RowMemory?
  private let format: WireFormat
  private let admitted: AdmittedValues
  private let bound: Float
  private let start: UnsafeMutableRawPointer
  private var checksum: FrameChecksum
  /// Bytes so far.
  private(set) var count = 0

  init(
    _ codec: RowCodec, _ format: WireFormat, _ rounding: RowRounding, _ memory: RowMemory?,
    _ admitted: AdmittedValues,
    header: UnsafeMutableRawPointer, start: UnsafeMutableRawPointer
  ) {
    (self.codec, self.format, self.rounding, self.memory) = (codec, format, rounding, memory)
    self.admitted = admitted
    (self.header, self.start, hidden, bound) = (header, start, codec.hidden, format.bound)
    checksum = FrameChecksum(of: start, lanes: codec.lanes, kernels: codec.kernels)
  }

  /// Where the next bytes belong.
  var next: UnsafeMutableRawPointer { start + count }

  /// Says that as many bytes have been written there.
  @inline(__always)
  mutating func advance(by bytes: Int) {
    count += bytes
    checksum.advance(to: count)
  }

  /// The floats of a row of a group, looked at just before it is encoded; valid until the next row is asked for.
  @inline(__always)
  func row(_ index: Int, of group: RowSource) throws(CrosspointError) -> UnsafePointer<Float> {
    let row = codec.row(index, of: group)
    try admitted.check(RowPointer(row), hidden, bound: bound, format)
    return row
  }

  /// Appends a row as it lies.
  @inline(__always)
  mutating func append(_ row: RowPointer) throws(CrosspointError) {
    try admitted.check(row, hidden, bound: .greatestFiniteMagnitude, format)
    let bytes = hidden * row.type.bytes
    next.copyMemory(from: row.base, byteCount: bytes)
    advance(by: bytes)
  }

  /// The checksum of the whole body.
  func sum() -> UInt64 { checksum.finish(count) }
}
