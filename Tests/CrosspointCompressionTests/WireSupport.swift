import CrosspointCore
import CrosspointTestSupport
import CrosspointTokens

@testable import CrosspointCompression

/// A frame of rows `x` split into groups, as an array of exactly its bytes; a row as important as its number says.
func encodeFrame(
  _ x: [Float], hidden: Int, groups: [Int], as format: WireFormat,
  rounding: RowRounding = .nearest, importances: [Float]? = nil, labels: [Int32]? = nil, memory: RowMemory? = nil,
  codec: RowCodec? = nil, admitting values: AdmittedValues = .any
) throws -> [UInt8] {
  let codec = try codec ?? RowCodec(hidden: hidden, seed: 7, pool: BufferPool())
  let size = codec.maximumFrameBytes(format, rows: groups.reduce(0, +), groups: groups.count)
  return try x.withUnsafeBufferPointer { x in
    // One float more than needed, so that an empty batch has an address too.
    let empty = UnsafeMutablePointer<Float>.allocate(capacity: 1)
    defer { empty.deallocate() }
    var start = x.baseAddress ?? UnsafePointer(empty)
    let weights = UnsafeMutablePointer<Float>.allocate(capacity: max(1, groups.reduce(0, +)))
    defer { weights.deallocate() }
    if let importances { weights.update(from: importances, count: importances.count) }
    var weight = UnsafePointer(weights)
    let marks = UnsafeMutablePointer<Int32>.allocate(capacity: max(1, labels?.count ?? 0))
    defer { marks.deallocate() }
    if let labels { marks.update(from: labels, count: labels.count) }
    var mark = UnsafePointer(marks)
    let sources = groups.map { rows in
      defer { (start, weight, mark) = (start + rows * hidden, weight + rows, mark + rows) }
      return RowSource(
        base: start, rows: rows, importances: importances == nil ? nil : weight, labels: labels == nil ? nil : mark)
    }
    return try [UInt8](unsafeUninitializedCapacity: size) { frame, count in
      let frame = UnsafeMutableRawBufferPointer(frame)
      let start = FrameHeader.bytes(groups: groups.count)
      count =
        start
        + (try codec.encode(
          sources, as: format, rounding: rounding, memory: memory, admitting: values,
          header: UnsafeMutableRawBufferPointer(rebasing: frame[..<start]),
          body: UnsafeMutableRawBufferPointer(rebasing: frame[start...])))
    }
  }
}

/// Decodes into rows that were NaN before.
func decodeFrame(
  _ frame: [UInt8], hidden: Int, groups: [Int], memory: RowMemory? = nil, codec: RowCodec? = nil
) throws -> [Float] {
  let codec = try codec ?? RowCodec(hidden: hidden, seed: 7, pool: BufferPool())
  // A copy of exactly the frame's size, so that the address sanitizer sees any read beyond it.
  let bytes = UnsafeMutableRawBufferPointer.allocate(byteCount: frame.count, alignment: 1)
  defer { bytes.deallocate() }
  bytes.copyBytes(from: frame)
  let count = groups.reduce(0, +) * hidden
  let rows = UnsafeMutableBufferPointer<Float>.allocate(capacity: max(1, count))
  defer { rows.deallocate() }
  rows.update(repeating: .nan)
  var start = rows.baseAddress!
  let targets = groups.map { count in
    defer { start += count * hidden }
    return RowTarget(base: start, rows: count)
  }
  try codec.decode(UnsafeRawBufferPointer(bytes), memory: memory, into: targets)
  return Array(rows.prefix(count))
}

/// Makes a changed frame consistent again, as a peer would that lies rather than errs: the size of its body and both checksums.
func reseal(_ frame: inout [UInt8], groups: Int, _ codec: RowCodec) {
  let start = FrameHeader.bytes(groups: groups)
  frame.withUnsafeMutableBytes { bytes in
    let base = bytes.baseAddress!
    let count = bytes.count - start
    base.put(UInt64(count), at: 24)
    base.put(UInt64(count), at: 32)
    base.put(codec.checksum(base + start, count), at: 40)
  }
  resealHeader(&frame, groups: groups, codec)
}

/// The same for a changed header, which keeps the numbers that it has.
func resealHeader(_ frame: inout [UInt8], groups: Int, _ codec: RowCodec) {
  let end = FrameHeader.bytes(groups: groups) - 8
  frame.withUnsafeMutableBytes { $0.baseAddress!.put(codec.checksum($0.baseAddress!, end), at: end) }
}

/// Rows through a frame and back.
func roundTrip(
  _ x: [Float], hidden: Int, groups: [Int]? = nil, as format: WireFormat
) throws -> [Float] {
  let groups = groups ?? [x.count / hidden]
  let frame = try encodeFrame(x, hidden: hidden, groups: groups, as: format)
  return try decodeFrame(frame, hidden: hidden, groups: groups)
}

/// Independent standard normal floats (Box-Muller would need libm; twelve uniforms are close enough in the body, and the
/// rotation does the rest).
func normalFloats(_ count: Int, seed: UInt64) -> [Float] {
  var generator = SplitMix64(seed: seed)
  return (0..<count).map { _ in (0..<12).reduce(Float(-6)) { sum, _ in sum + generator.nextUnit() } }
}

/// Floats that are awkward for every format.
let awkwardFloats: [Float] = [
  0, -0.0, 1, -1, 1.5, .pi, 65504, 65519.99, 65520, 1e5, 448, 464, 465, 500, 0x1p-6, 0x1p-7, 0x1p-9, 0x1p-10, 0x1.8p-10,
  0x1p-14, 0x1p-15, 0x1p-24, 0x1p-25, 0x1.8p-25, .leastNormalMagnitude, .leastNonzeroMagnitude,
  .greatestFiniteMagnitude, -.greatestFiniteMagnitude, .infinity, -.infinity, .nan, -.nan,
  Float(bitPattern: 0x3F80_8000), Float(bitPattern: 0x3F81_8000), Float(bitPattern: 0x3F80_8001),
  Float(bitPattern: 0x7F80_0001), Float(bitPattern: 0x7FFF_FFFF), Float(bitPattern: 0x7F7F_8000),
]

/// Random bit patterns: every exponent, NaN and infinity among them.
func randomPatterns(_ count: Int, seed: UInt64) -> [Float] {
  var generator = SplitMix64(seed: seed)
  return (0..<count).map { _ in Float(bitPattern: UInt32(truncatingIfNeeded: generator.next())) }
}
