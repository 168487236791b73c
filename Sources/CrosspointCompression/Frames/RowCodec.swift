import CCrosspointKernels
import CrosspointCore
import CrosspointTokens

/// Rows to frames and back: the one encoder and the one decoder of every transfer. What a row becomes is its
/// ``WireFormat``'s affair; this holds what all formats share: the frame around the body, the rotation, scratch memory.
///
/// A frame is self-describing, versioned and checksummed (docs/wire-format.md). Every size in it is compared with what the
/// receiver expects and with the frame's real length before it is used. Steady state allocates nothing.
/// One codec serves one thread at a time. Not collective.
///
/// ```swift
/// let codec = try RowCodec(hidden: 768, seed: 1, pool: pool)
/// let bytes = try codec.encode([RowSource(base: x, rows: 10)], as: .bf16, into: frame)
/// try codec.decode(UnsafeRawBufferPointer(rebasing: frame[..<bytes]), into: [RowTarget(base: y, rows: 10)])
/// ```
package final class RowCodec {
  /// Elements per row.
  package let hidden: Int
  /// How rows lie in the caller's memory; what is between them and their frames may be floats in any case.
  package let rows: RowType

  let kernels: xp_kernels
  let pool: BufferPool
  let rotation: PseudoRotation
  private let scratch: BufferPool.Buffer
  private var workspace = BufferPool.Buffer.empty

  /// - Parameters:
  ///   - hidden: Floats per row, 1…2²⁴.
  ///   - seed: Seed of the rotation; the same on every rank.
  ///   - rows: The most that rows may be besides floats.
  ///   - pool: Where scratch memory comes from.
  /// - Throws: `invalidArgument`, `outOfMemory`.
  package init(
    hidden: Int, seed: UInt64, rows: RowType = .fp32, pool: BufferPool
  ) throws(CrosspointError) {
    try Extent.require(hidden, in: Extent.hidden, operation: "RowCodec", argument: "hidden")
    self.hidden = hidden
    self.rows = rows
    self.pool = pool
    kernels = CrosspointTokens.kernels
    rotation = try PseudoRotation(hidden: hidden, rounds: 1, seed: seed)
    scratch = try pool.lease(bytes: 512 + (rows == .fp32 ? 3 : 4) * 4 * hidden)
  }

  deinit {
    pool.release(scratch)
    pool.release(workspace)
  }

  /// Memory for the work on one frame, kept for the next: a format's largest, which would find no other of its size idle.
  func workspace(bytes: Int) throws(CrosspointError) -> BufferPool.Buffer {
    if workspace.capacity < bytes {
      pool.release(workspace)
      workspace = .empty
      workspace = try pool.lease(bytes: bytes)
    }
    return workspace
  }

  /// The 64 words of a checksum under way.
  var lanes: UnsafeMutablePointer<UInt32> { scratch.base.assumingMemoryBound(to: UInt32.self) }

  /// The same for bytes that lie in several places.
  func scatteredChecksum() -> ScatteredChecksum {
    ScatteredChecksum(lanes: lanes, carry: scratch.base + 256, kernels: kernels)
  }

  /// One of three rows of scratch, for formats, and between frames for their caller; a fourth for rows that are no floats.
  package func scratchRow(_ index: Int) -> UnsafeMutablePointer<Float> {
    (scratch.base + 512 + index * 4 * hidden).assumingMemoryBound(to: Float.self)
  }

  /// The floats of a row; valid until the next row is asked for.
  @inline(__always)
  func row(_ index: Int, of group: RowSource) -> UnsafePointer<Float> {
    group.row(index, hidden: hidden).floats(hidden, scratch: scratchRow(3))
  }

  /// Fills a row with the floats that `decode` writes.
  @inline(__always)
  func fill(_ index: Int, of group: RowTarget, _ decode: (_ row: UnsafeMutablePointer<Float>) -> Void) {
    let row = group.row(index, hidden: hidden)
    guard !row.type.isFloat else { return decode(row.floats) }
    decode(scratchRow(3))
    row.store(UnsafePointer(scratchRow(3)), hidden)
  }

  func checksum(_ bytes: UnsafeRawPointer, _ count: Int) -> UInt64 {
    FrameChecksum(of: bytes, lanes: lanes, kernels: kernels).finish(count)
  }

  /// √(mean x²); NaN when an element is NaN or infinite. Rows whose squares leave the range of a float are brought to one.
  func rootMeanSquare(_ row: UnsafeMutablePointer<Float>, energy: Float) -> Float {
    if energy.isFinite, energy > 1e-30 { return (energy / Float(hidden)).squareRoot() }
    let most = kernels.largest_magnitude(row, hidden)
    guard most.isFinite else { return .nan }
    guard most >= .leastNormalMagnitude else { return 0 }
    let scaled = scratchRow(2)
    let factor = max(1 / most, .leastNormalMagnitude)
    kernels.scale(scaled, factor, row, hidden)
    return (kernels.dot(scaled, scaled, hidden) / Float(hidden)).squareRoot() / factor
  }

  /// Bytes of a frame before its body.
  package static func headerBytes(groups: Int) -> Int { FrameHeader.bytes(groups: groups) }

  /// Bytes of the mean rows in the body of a frame that this codec has encoded.
  package static func meanBytes(
    in header: UnsafeRawBufferPointer, _ format: WireFormat, groups: Int, hidden: Int
  ) -> Int {
    let centred = (0..<groups).count { FrameHeader.group($0, of: header.baseAddress!).centred }
    return centred * format.meanBytes(hidden: hidden)
  }

  /// Upper bound of the size of a frame that holds `rows` rows in `groups` groups.
  package func maximumFrameBytes(_ format: WireFormat, rows: Int, groups: Int) -> Int {
    FrameHeader.bytes(groups: groups) + maximumBodyBytes(format, rows: rows, groups: groups)
  }

  /// The same without the header.
  package func maximumBodyBytes(_ format: WireFormat, rows: Int, groups: Int) -> Int {
    format.maximumBodyBytes(rows: rows, groups: groups, hidden: hidden)
  }
}
