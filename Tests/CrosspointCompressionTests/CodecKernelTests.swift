import CCrosspointKernels
import CrosspointCore
import CrosspointTestSupport
import Testing

@testable import CrosspointCompression

/// Every variant that this processor has gives the bits of the scalar one, at every tail.
@Suite struct CodecKernelTests {
  static var variants: [xp_kernels] {
    [XP_SCALAR, XP_AVX2, XP_AVX512, XP_NEON].compactMap { xp_kernels_variant($0)?.pointee }
  }
  static let lengths = Array(0...70) + [127, 128, 129, 130, 200, 255, 256, 257, 300, 383, 384, 513]

  /// What each variant writes into `count` bytes, which must be equal.
  private func expectEqual(_ count: Int, _ what: String, _ run: (xp_kernels, UnsafeMutableRawPointer) -> Void) {
    var first: [UInt8]?
    for variant in Self.variants {
      // One byte beyond, which nobody may touch; and an odd address.
      var out = [UInt8](repeating: 0xA5, count: count + 2)
      out.withUnsafeMutableBytes { run(variant, $0.baseAddress! + 1) }
      #expect(out[0] == 0xA5 && out[count + 1] == 0xA5, "\(what): wrote outside")
      if let first { #expect(first == out, "\(what): \(String(cString: variant.name))") } else { first = out }
    }
  }

  @Test func smallFloats() {
    for n in Self.lengths {
      let x = randomPatterns(n, seed: UInt64(n)) + [0]
      let bytes = randomPatterns(n, seed: 50 + UInt64(n)) + [0]
      expectEqual(2 * n, "bf16 \(n)") { $0.bf16_encode($1, x, n, 1) }
      expectEqual(2 * n, "fp16 \(n)") { $0.fp16_encode($1, x, n, 1) }
      expectEqual(n, "e4m3 \(n)") { $0.e4m3_encode($1, x, n, 0x1p-20) }
      expectFloats(n, "bf16 \(n)") { $0.bf16_decode($1, bytes, n, 1) }
      expectFloats(n, "fp16 \(n)") { $0.fp16_decode($1, bytes, n, 1) }
      expectFloats(n, "e4m3 \(n)") { $0.e4m3_decode($1, bytes, n, 3) }
    }
  }

  private func expectFloats(_ n: Int, _ what: String, _ run: (xp_kernels, UnsafeMutablePointer<Float>) -> Void) {
    var first: [Float]?
    for variant in Self.variants {
      var out = [Float](repeating: 7, count: n + 1)
      run(variant, &out)
      #expect(out[n] == 7, "\(what): wrote outside")
      if let first {
        #expect(firstBitDifference(first, out) == nil, "\(what): \(String(cString: variant.name))")
      } else {
        first = out
      }
    }
  }

  @Test func packedCodes() {
    for n in Self.lengths {
      let x = randomFloats(n, seed: UInt64(n)) + [0]
      let bytes = randomPatterns(2 * n + 8, seed: 60 + UInt64(n))
      for bits in 1...8 {
        let size = WireFormat.packedBytes(n, bits: bits)
        let book = Codebook.ofBits[bits - 1]
        let count = Int32(bits)
        expectEqual(size, "Lloyd-Max \(bits), \(n)") {
          $0.lloyd_max_encode($1, x, n, count, 1.7, book.compander)
        }
        expectEqual(size, "uniform \(bits), \(n)") { $0.uniform_encode($1, x, n, count, -2, 0.013) }
        expectFloats(n, "Lloyd-Max \(bits), \(n)") { $0.lloyd_max_decode($1, bytes, n, count, 0.3, book.levels) }
        expectFloats(n, "uniform \(bits), \(n)") { $0.uniform_decode($1, bytes, n, count, -2, 0.013) }
      }
    }
  }

  @Test func dithers() {
    for n in Self.lengths {
      let x = randomFloats(n, seed: UInt64(n)) + [0]
      for key in [UInt64(0), 0xDEAD_BEEF_0BAD_F00D] {
        expectFloats(n, "uniform \(n)") { $0.dither_uniform($1, x, n, 0.3, key) }
        expectFloats(n, "signs \(n)") { $0.flip_signs($1, x, n, key) }
      }
    }
  }

  @Test func channels() {
    for n in Self.lengths {
      let (x, y) = (randomPatterns(n, seed: UInt64(n)) + [0], randomFloats(n, seed: 3) + [0])
      let most = randomFloats(n, seed: 4).map { abs($0) } + [0]
      expectFloats(n, "multiply \(n)") { $0.multiply($1, y, most, n) }
      expectFloats(n, "magnitudes \(n)") { kernels, out in
        out.update(from: most, count: n)
        kernels.fold_magnitudes(out, x, n)
      }
      for variant in Self.variants {
        var folded = most
        variant.fold_magnitudes(&folded, x, n)
        for i in 0..<n { #expect(x[i].isNaN ? folded[i].isNaN : folded[i] == max(most[i], abs(x[i]))) }
      }
    }
  }

  @Test func extremes() {
    for n in Self.lengths where n > 0 {
      let x = randomFloats(n, seed: UInt64(n))
      for variant in Self.variants {
        var (low, high): (Float, Float) = (0, 0)
        variant.smallest_and_largest(x, n, &low, &high)
        #expect(low == x.min()! && high == x.max()!)
        #expect(variant.largest_magnitude(x, n) == x.map(abs).max()!)
        #expect(variant.largest_magnitude([.nan] + x, n + 1).isNaN)
        #expect(variant.largest_magnitude(x + [-.infinity], n + 1) == .infinity)
      }
    }
  }

  @Test func checksums() {
    for n in Array(0...300) + [511, 512, 513, 1024, 5000] {
      let bytes = randomPatterns(n / 4 + 2, seed: UInt64(n))
      var sums = Set<UInt64>()
      for variant in Self.variants {
        for split in [0, n / 512 * 256, n & ~255] {
          var lanes = [UInt32](repeating: 0, count: 64)
          bytes.withUnsafeBytes { bytes in
            let (base, whole) = (bytes.baseAddress! + 1, n & ~255)
            variant.checksum_absorb(&lanes, base, split)
            variant.checksum_absorb(&lanes, base + split, whole - split)
            sums.insert(variant.checksum_finish(lanes, base + whole, n - whole, UInt64(n)))
          }
        }
      }
      #expect(sums.count == 1, "\(n) bytes")
    }
  }

  @Test func everyBitOfABodyMovesTheChecksum() {
    let kernels = Self.variants[0]
    var bytes = [UInt8](repeating: 0, count: 700)
    func sum() -> UInt64 {
      var lanes = [UInt32](repeating: 0, count: 64)
      return bytes.withUnsafeBytes { bytes in
        kernels.checksum_absorb(&lanes, bytes.baseAddress!, 512)
        return kernels.checksum_finish(lanes, bytes.baseAddress! + 512, 188, 700)
      }
    }
    var sums: Set<UInt64> = [sum()]
    for bit in 0..<8 * bytes.count {
      bytes[bit / 8] ^= 1 << (bit % 8)
      sums.insert(sum())
      bytes[bit / 8] ^= 1 << (bit % 8)
    }
    #expect(sums.count == 8 * bytes.count + 1)
  }
}
