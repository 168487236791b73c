/// Even steps from a row's smallest element: `x ≈ low + code · step`, both as bfloat16. Low is rounded down and step up, so
/// that the codes reach over the whole row; the error is at most half a step. A row that holds NaN or infinity decodes to NaN
/// throughout.
struct UniformFormat: RowwiseFormat {
  static let usage = "int8, int4"
  static let members = [UniformFormat(bits: 8), UniformFormat(bits: 4)]
  let bits: Int

  var text: String { "int\(bits)" }
  var code: UInt16 { (bits == 8 ? 5 : 6) | UInt16(bits) << 8 }

  func rowBytes(_ hidden: Int) -> Int { 4 + WireFormat.packedBytes(hidden, bits: bits) }

  func encode(_ row: UnsafePointer<Float>, into out: UnsafeMutableRawPointer, _ codec: RowCodec) {
    let hidden = codec.hidden
    var low: Float = 0
    var high: Float = 0
    let finite = codec.kernels.largest_magnitude(row, hidden).isFinite
    if finite { codec.kernels.smallest_and_largest(row, hidden, &low, &high) }
    let levels = Float((1 << bits) - 1)
    let offset = finite ? BFloat16(down: low) : .nan
    let step = finite ? BFloat16(up: max(high / levels - offset.value / levels, .leastNormalMagnitude)) : .nan
    out.put(offset.bits, at: 0)
    out.put(step.bits, at: 2)
    codec.kernels.uniform_encode(out + 4, row, hidden, Int32(bits), offset.value, step.value)
  }

  func decode(_ bytes: UnsafeRawPointer, into row: UnsafeMutablePointer<Float>, _ codec: RowCodec) {
    let offset = BFloat16(bits: bytes.get(at: 0))
    let step = BFloat16(bits: bytes.get(at: 2))
    codec.kernels.uniform_decode(row, bytes + 4, codec.hidden, Int32(bits), offset.value, step.value)
  }
}

extension WireFormat {
  /// 256 even steps between a row's smallest and largest element.
  public static let int8 = WireFormat(UniformFormat(bits: 8))
  /// 16 even steps between a row's smallest and largest element.
  public static let int4 = WireFormat(UniformFormat(bits: 4))
}
