import CrosspointCore

/// The body of a frame while it is read; its size has been compared with what its rows take.
struct BodyReader {
  let codec: RowCodec
  let hidden: Int
  /// The frame's header, which says of each group whether it is centred.
  let header: UnsafeRawPointer
  /// The keys of rows that have signs, or noise, of their own.
  var signs: RowRounding?
  /// The memory that rows are relative to.
  var memory: RowMemory?
  private let body: UnsafeRawBufferPointer
  private let start: UnsafeRawPointer
  private var checksum: FrameChecksum
  private let sum: UInt64
  private var count = 0
  private var isVerified = false

  /// - Parameter sum: The checksum that the body must have.
  init(_ codec: RowCodec, header: UnsafeRawPointer, body: UnsafeRawBufferPointer, sum: UInt64) {
    (self.codec, self.header, self.body, self.sum) = (codec, header, body, sum)
    hidden = codec.hidden
    // Without rows there may be no memory.
    start = body.baseAddress ?? header
    checksum = FrameChecksum(of: start, lanes: codec.lanes, kernels: codec.kernels)
  }

  /// The next bytes, summed before they are read.
  @inline(__always)
  mutating func take(_ bytes: Int) -> UnsafeRawPointer {
    defer { count += bytes }
    checksum.advance(to: count + bytes)
    return start + count
  }

  /// What is left of the body, all of it verified.
  mutating func takeAll() throws(CrosspointError) -> UnsafeRawBufferPointer {
    try verify()
    return UnsafeRawBufferPointer(rebasing: body[min(count, body.count)...])
  }

  /// Throws `corruptFrame` unless the whole body has the checksum that it must have.
  mutating func verify() throws(CrosspointError) {
    guard !isVerified else { return }
    try FrameChecksum.compare(sum, checksum.finish(body.count))
    isVerified = true
  }
}
