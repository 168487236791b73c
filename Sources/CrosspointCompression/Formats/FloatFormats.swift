import CrosspointTokens

/// The floats themselves: bitwise.
struct FP32Format: RowwiseFormat {
  static let usage = "fp32"
  static let members = [FP32Format()]
  let code: UInt16 = 1 | 32 << 8
  let bound = Float.greatestFiniteMagnitude
  let carries: RowType? = .fp32

  func rowBytes(_ hidden: Int) -> Int { 4 * hidden }

  func encode(_ row: UnsafePointer<Float>, into out: UnsafeMutableRawPointer, _ codec: RowCodec) {
    out.copyMemory(from: row, byteCount: 4 * codec.hidden)
  }

  func decode(_ bytes: UnsafeRawPointer, into row: UnsafeMutablePointer<Float>, _ codec: RowCodec) {
    UnsafeMutableRawPointer(row).copyMemory(from: bytes, byteCount: 4 * codec.hidden)
  }
}

/// bfloat16, round to nearest even.
struct BF16Format: RowwiseFormat {
  static let usage = "bf16"
  static let members = [BF16Format()]
  let code: UInt16 = 2 | 16 << 8
  let carries: RowType? = .bf16

  func rowBytes(_ hidden: Int) -> Int { 2 * hidden }

  func encode(_ row: UnsafePointer<Float>, into out: UnsafeMutableRawPointer, _ codec: RowCodec) {
    codec.kernels.bf16_encode(out, row, codec.hidden, 1)
  }

  func decode(_ bytes: UnsafeRawPointer, into row: UnsafeMutablePointer<Float>, _ codec: RowCodec) {
    codec.kernels.bf16_decode(row, bytes, codec.hidden, 1)
  }
}

/// IEEE half, round to nearest even.
struct FP16Format: RowwiseFormat {
  static let usage = "fp16"
  static let members = [FP16Format()]
  let code: UInt16 = 3 | 16 << 8
  let bound: Float = 65504

  func rowBytes(_ hidden: Int) -> Int { 2 * hidden }

  func encode(_ row: UnsafePointer<Float>, into out: UnsafeMutableRawPointer, _ codec: RowCodec) {
    codec.kernels.fp16_encode(out, row, codec.hidden, 1)
  }

  func decode(_ bytes: UnsafeRawPointer, into row: UnsafeMutablePointer<Float>, _ codec: RowCodec) {
    codec.kernels.fp16_decode(row, bytes, codec.hidden, 1)
  }
}

extension WireFormat {
  /// The rows as they lie, bit for bit: floats, or where rows are bf16 in memory, those (``bf16`` is the same there).
  public static let fp32 = WireFormat(FP32Format())
  /// bfloat16, round to nearest even.
  public static let bf16 = WireFormat(BF16Format())
  /// IEEE half, round to nearest even; magnitudes up to 65504.
  public static let fp16 = WireFormat(FP16Format())
}
