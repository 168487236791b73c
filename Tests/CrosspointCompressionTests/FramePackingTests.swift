import CrosspointCore
import CrosspointTestSupport
import CrosspointTokens
import Testing

@testable import CrosspointCompression

@Suite struct FramePackingTests {
  static let hidden = 512

  @Test func packedFramesDecodeToTheSameBits() throws {
    for hidden in [1, 3, 100, Self.hidden] {
      let x = randomFloats(64 * hidden, seed: 40)
      for format in WireFormat.all {
        let plain = try roundTrip(x, hidden: hidden, groups: [40, 24], as: format)
        for packing in [Packing.zstd, .auto] {
          let packed = try roundTrip(x, hidden: hidden, groups: [40, 24], as: format, packing: packing)
          #expect(firstBitDifference(packed, plain) == nil, "\(format) \(packing)")
        }
      }
    }
  }

  @Test func exponentPlanesShrinkAndMantissaPlanesAreSentAsTheyAre() throws {
    let x = randomFloats(64 * Self.hidden, seed: 41)
    let plain = try encodeFrame(x, hidden: Self.hidden, groups: [64], as: .bf16)
    let packed = try encodeFrame(x, hidden: Self.hidden, groups: [64], as: .bf16, packing: .zstd)
    #expect(packed.count < plain.count * 9 / 10)
    let mantissas: UInt64 = packed.withUnsafeBytes { $0.baseAddress!.get(at: FrameHeader.bytes(groups: 1)) }
    #expect(mantissas == UInt64(64 * Self.hidden))
  }

  @Test func aFrameNeverGrows() throws {
    let x = randomPatterns(64 * Self.hidden, seed: 42)
    for format in [WireFormat.fp32, .bf16] {
      let plain = try encodeFrame(x, hidden: Self.hidden, groups: [64], as: format)
      for packing in [Packing.zstd, .auto] {
        let packed = try encodeFrame(x, hidden: Self.hidden, groups: [64], as: format, packing: packing)
        #expect(packed.count <= plain.count)
      }
    }
  }

  @Test func autoFollowsTheLink() throws {
    let codec = try RowCodec(hidden: Self.hidden, seed: 7, pool: BufferPool())
    let zeros = [Float](repeating: 0, count: 64 * Self.hidden)
    codec.linkBytesPerSecond = 1
    let slow = try encodeFrame(zeros, hidden: Self.hidden, groups: [64], as: .fp32, packing: .auto, codec: codec)
    #expect(slow.count < zeros.count)
    codec.linkBytesPerSecond = 1e15
    let fast = try encodeFrame(zeros, hidden: Self.hidden, groups: [64], as: .fp32, packing: .auto, codec: codec)
    #expect(fast.count > 4 * zeros.count)
  }
}
