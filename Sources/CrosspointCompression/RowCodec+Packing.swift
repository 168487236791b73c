import CrosspointCore
import CrosspointTokens

#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// The body squeezed: byte planes, each by zstd where that saves bytes, as it is otherwise.
extension RowCodec {
  /// Bodies below this are left alone by `.auto`.
  private static let worthPacking = 4096
  /// A plane must shrink below this part of itself for `.auto`.
  private static let worthwhileRatio = 0.9
  /// Both ends' time over the time of compressing (zstd decompresses about twice as fast).
  private static let bothEnds = 1.5
  /// Elements of a sample: this many pieces of this many, spread over the body.
  private static let samplePieces = 4
  private static let samplePiece = 4096

  /// Packs the body in place; `nil` if it is better left as it is.
  func pack(
    _ body: UnsafeMutableRawPointer, _ rawBytes: Int, format: WireFormat, packing: Packing
  ) throws(CrosspointError) -> Int? {
    guard packing != .none, format.hasFixedRows, rawBytes > 8 * format.planes,
      packing == .zstd || rawBytes >= Self.worthPacking
    else {
      return nil
    }
    let planes = format.planes
    var chosen: UInt8 = 0b1111
    if packing == .auto {
      chosen = try choosePlanes(body, rawBytes, planes: planes)
      if chosen == 0 { return nil }
    }
    let elements = rawBytes / planes
    let sorted = try pool.lease(bytes: rawBytes)
    defer { pool.release(sorted) }
    split(body, elements, planes: planes, into: sorted.base)

    var end = 8 * planes
    for plane in 0..<planes {
      let source = sorted.base + plane * elements
      let capacity = min(elements - 1, rawBytes - 1 - end)
      var size = elements
      if chosen & 1 << plane != 0, capacity > 0,
        let squeezed = squeezer.compress(source, elements, into: body + end, capacity: capacity)
      {
        size = squeezed
      } else if end + elements < rawBytes {
        memcpy(body + end, source, elements)
      } else {
        merge(sorted.base, elements, planes: planes, into: body)
        return nil
      }
      body.put(UInt64(size), at: 8 * plane)
      end += size
    }
    return end
  }

  /// Undoes ``pack``. `raw` has room for twice `rawBytes`: the rows come first, the planes behind them.
  func unpack(
    _ body: UnsafeRawBufferPointer, into raw: UnsafeMutableRawPointer, _ rawBytes: Int, format: WireFormat
  ) throws(CrosspointError) {
    let planes = format.planes
    let elements = rawBytes / planes
    let sorted = raw + rawBytes
    var offset = 8 * planes
    guard body.count > offset, let base = body.baseAddress else {
      throw .truncated("\(body.count) bytes of packed body; the lengths of \(planes) planes take \(offset)")
    }
    for plane in 0..<planes {
      let announced: UInt64 = base.get(at: 8 * plane)
      guard announced <= elements, announced <= body.count - offset else {
        throw .corrupt(
          "plane", "\(announced) bytes announced for plane \(plane) of \(elements); \(body.count - offset) are left")
      }
      let size = Int(announced)
      if size == elements {
        memcpy(sorted + plane * elements, base + offset, elements)
      } else if !squeezer.decompress(base + offset, size, into: sorted + plane * elements, elements) {
        throw .corrupt("plane", "plane \(plane) does not decompress into \(elements) bytes")
      }
      offset += size
    }
    guard offset == body.count else { throw .corrupt("plane", "the planes end at \(offset) of \(body.count) bytes") }
    merge(sorted, elements, planes: planes, into: raw)
  }

  /// The planes (as bits) of which a sample says that zstd pays on the link.
  private func choosePlanes(
    _ body: UnsafeRawPointer, _ rawBytes: Int, planes: Int
  ) throws(CrosspointError) -> UInt8 {
    let elements = rawBytes / planes
    let piece = min(Self.samplePiece, elements / Self.samplePieces)
    let count = piece * Self.samplePieces
    let buffer = try pool.lease(bytes: 2 * Self.samplePieces * Self.samplePiece)
    defer { pool.release(buffer) }
    var chosen: UInt8 = 0
    for plane in 0..<planes {
      for index in 0..<Self.samplePieces {
        let start = (elements - piece) / (Self.samplePieces - 1) * index
        kernels.plane_split(buffer.base + index * piece, body + start * planes, piece, planes, plane)
      }
      let began = ContinuousClock.now
      let size = squeezer.compress(buffer.base, count, into: buffer.base + count, capacity: count)
      let seconds = (ContinuousClock.now - began) / .seconds(1)
      let ratio = Double(size ?? count) / Double(count)
      let saved = Double(count - (size ?? count))
      if ratio < Self.worthwhileRatio, saved > linkBytesPerSecond * Self.bothEnds * seconds { chosen |= 1 << plane }
    }
    return chosen
  }

  private func split(_ from: UnsafeRawPointer, _ elements: Int, planes: Int, into: UnsafeMutableRawPointer) {
    for plane in 0..<planes { kernels.plane_split(into + plane * elements, from, elements, planes, plane) }
  }

  private func merge(_ from: UnsafeRawPointer, _ elements: Int, planes: Int, into: UnsafeMutableRawPointer) {
    for plane in 0..<planes { kernels.plane_merge(into, from + plane * elements, elements, planes, plane) }
  }
}
