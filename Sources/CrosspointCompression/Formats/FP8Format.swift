/// E4M3 with one scale (bfloat16) for every 128 elements. A block that holds NaN or infinity decodes to NaN throughout, so
/// that nothing non-finite ever turns finite on the way.
struct FP8Format: RowwiseFormat {
  static let usage = "fp8"
  static let members = [FP8Format()]
  /// Elements that share one scale.
  static let block = 128
  let code: UInt16 = 4 | 8 << 8

  private func blocks(_ hidden: Int) -> Int { (hidden + Self.block - 1) / Self.block }

  func rowBytes(_ hidden: Int) -> Int { hidden + 2 * blocks(hidden) }

  func encode(_ row: UnsafePointer<Float>, into out: UnsafeMutableRawPointer, _ codec: RowCodec) {
    let (hidden, blocks) = (codec.hidden, blocks(codec.hidden))
    for block in 0..<blocks {
      let start = block * Self.block
      let count = min(Self.block, hidden - start)
      let most = codec.kernels.largest_magnitude(row + start, count)
      let least = max(most / 448, .leastNormalMagnitude)
      let scale = most.isFinite ? BFloat16(nearest: least) : .nan
      out.put(scale.bits, at: 2 * block)
      codec.kernels.e4m3_encode(out + 2 * blocks + start, row + start, count, 1 / scale.value)
    }
  }

  func decode(_ bytes: UnsafeRawPointer, into row: UnsafeMutablePointer<Float>, _ codec: RowCodec) {
    let (hidden, blocks) = (codec.hidden, blocks(codec.hidden))
    for block in 0..<blocks {
      let start = block * Self.block
      let scale = BFloat16(bits: bytes.get(at: 2 * block))
      codec.kernels.e4m3_decode(
        row + start, bytes + 2 * blocks + start, min(Self.block, hidden - start), scale.value)
    }
  }
}

extension WireFormat {
  /// E4M3 with one scale for every 128 elements.
  public static let fp8 = WireFormat(FP8Format())
}
