import CrosspointCore
import CrosspointTestSupport
import CrosspointTokens
import Testing

@testable import CrosspointCompression

@Suite struct WireRotatedTests {
  /// Mean squared error of the optimal quantiser of the unit Gaussian (Max 1960, table I, continued to 8 bits).
  static let distortion = [0.3634, 0.1175, 0.03455, 0.009501, 0.002505, 0.000644, 0.0001635, 0.0000412]

  /// The positive levels of a book.
  private func positive(_ book: Codebook) -> [Float] { Array(book.levels.prefix(1 << (book.bits - 1))) }

  /// The code of a value of unit variance as the documentation states it: sign and whole part of a polynomial.
  private func code(_ value: Float, _ book: Codebook) -> Int {
    let magnitude = min(abs(value), book.compander[0])
    let place = book.compander.dropFirst().reversed().reduce(Float(0)) { $0 * magnitude + $1 } * magnitude
    return Int(place) | (value.sign == .minus ? 1 << (book.bits - 1) : 0)
  }

  @Test func levelsAscendAndAreSymmetric() {
    for book in Codebook.ofBits {
      let levels = positive(book)
      #expect(book.levels.count == max(16, 2 * levels.count))
      #expect(levels == levels.sorted() && levels[0] > 0)
      #expect(Array(book.levels[levels.count..<2 * levels.count]) == levels.map { -$0 })
    }
  }

  @Test func codesAreThoseOfTheNearestLevelButForASixtyFourthOfACell() {
    for book in Codebook.ofBits {
      let levels = positive(book)
      var nearest = 0
      for step in 0...400_000 {
        let value = Float(step) * 2e-5
        while nearest + 1 < levels.count, levels[nearest + 1] + levels[nearest] <= 2 * value { nearest += 1 }
        let found = code(value, book)
        guard found != nearest else { continue }
        // Between two levels, and no further from half-way than the stated part of their distance.
        let low = min(found, nearest)
        #expect(abs(found - nearest) == 1 && found < levels.count)
        let (middle, cell) = ((levels[low] + levels[low + 1]) / 2, levels[low + 1] - levels[low])
        #expect(abs(value - middle) <= cell / 60, "\(book.bits) bits, \(value)")
      }
      for value in [Float](arrayLiteral: 100, 1e30, .greatestFiniteMagnitude) {
        #expect(code(value, book) == levels.count - 1)
      }
    }
  }

  @Test(arguments: 1...8) func errorIsThatOfLloydAndMax(bits: Int) throws {
    for hidden in [384, 1024] {
      let x = normalFloats(64 * hidden, seed: 20)
      let y = try roundTrip(x, hidden: hidden, as: .rotated(bits: bits))
      let error = relativeError(y, x)
      let expected = Self.distortion[bits - 1]
      // bfloat16 scales are off by up to 2^-9, which is felt at 8 bits.
      #expect(abs(error * error / expected - 1) < (bits < 7 ? 0.03 : 0.15), "\(bits) bits: \(error * error)")
    }
  }

  @Test(arguments: [1, 2, 4, 8, 13, 16, 100, 128, 384, 1000]) func codesAreThoseOfTheReference(hidden: Int) throws {
    for bits in 1...8 {
      let codec = try RowCodec(hidden: hidden, seed: 7, pool: BufferPool())
      let x = normalFloats(hidden, seed: UInt64(hidden))
      let frame = try encodeFrame(x, hidden: hidden, groups: [1], as: .rotated(bits: bits), codec: codec)
      let body = frame.dropFirst(FrameHeader.bytes(groups: 1))
      #expect(body.count == 2 + bits * ((hidden + 7) / 8))

      var rotated = x
      codec.rotation.rotate(x, into: &rotated)
      let scale = Float(bitPattern: UInt32(body[body.startIndex]) << 16 | UInt32(body[body.startIndex + 1]) << 24)
      let book = Codebook.ofBits[bits - 1]
      let codes = rotated.map { code($0 * (1 / scale), book) }
      #expect(Array(body.dropFirst(2)) == packedBits(codes, bits: bits))

      var expected = codes.map { book.levels[$0] * scale }
      codec.rotation.rotateBack(expected, into: &expected)
      let y = try decodeFrame(frame, hidden: hidden, groups: [1], codec: codec)
      #expect(firstBitDifference(y, expected) == nil)
    }
  }

  /// docs/wire-format.md, "Codes", bit by bit.
  private func packedBits(_ codes: [Int], bits: Int) -> [UInt8] {
    var out: [UInt8] = []
    for start in stride(from: 0, to: codes.count, by: 128) {
      let chunk = Array(codes[start..<min(start + 128, codes.count)])
      let lanes = (chunk.count + 7) / 8
      var shift = 0
      while shift < bits {
        let width = bits - shift >= 4 ? 4 : bits - shift >= 2 ? 2 : 1
        for lane in 0..<lanes {
          var word = 0
          for j in 0..<8 where j * lanes + lane < chunk.count {
            word |= (chunk[j * lanes + lane] >> shift & ((1 << width) - 1)) << (width * j)
          }
          for byte in 0..<width { out.append(UInt8(word >> (8 * byte) & 0xFF)) }
        }
        shift += width
      }
    }
    return out
  }

  @Test func aSharedMeanIsSentWhenItPaysAndOnlyThen() throws {
    let hidden = 256
    let noise = normalFloats(200 * hidden, seed: 21)
    let mean = normalFloats(hidden, seed: 22).map { $0 * 3 }
    let shifted = noise.indices.map { noise[$0] + mean[$0 % hidden] }
    let format = try WireFormat.rotated(bits: 2)
    func bodyBytes(_ x: [Float], _ groups: [Int]) throws -> Int {
      try encodeFrame(x, hidden: hidden, groups: groups, as: format).count - FrameHeader.bytes(groups: groups.count)
    }
    let rowBytes = format.coding.groupBytes(rows: 1, hidden: hidden)!
    #expect(try bodyBytes(shifted, [200]) == 200 * rowBytes + 2 * hidden)
    #expect(try bodyBytes(noise, [200]) == 200 * rowBytes)
    #expect(try bodyBytes(Array(shifted.prefix(2 * hidden)), [2]) == 2 * rowBytes)
    #expect(try bodyBytes(shifted, [2, 198, 0]) == 200 * rowBytes + 2 * hidden)

    let y = try roundTrip(shifted, hidden: hidden, groups: [2, 198, 0], as: format)
    var (error, energy) = (0.0, 0.0)
    for i in 2 * hidden..<shifted.count {
      error += Double((y[i] - shifted[i]) * (y[i] - shifted[i]))
      energy += Double(noise[i] * noise[i])
    }
    #expect(abs(error / energy - 0.1175) < 0.006, "\(error / energy)")
  }

  @Test func outliersAreSpreadByTheRotation() throws {
    var x = normalFloats(32 * 512, seed: 23)
    for row in 0..<32 { x[row * 512 + 17] = 80 }
    let error = relativeError(
      try roundTrip(x, hidden: 512, groups: [Int](repeating: 1, count: 32), as: .rotated(bits: 4)), x)
    #expect(error < 0.2)
    #expect(error < relativeError(try roundTrip(x, hidden: 512, as: .int4), x))
  }

  @Test func rowsOfAnySizeKeepTheirRelativeError() throws {
    let x = normalFloats(384, seed: 24)
    for size in [Float](arrayLiteral: 1e-30, 1e-18, 1e-10, 1, 1e10, 1e20, 1e30) {
      let scaled = x.map { $0 * size }
      let y = try roundTrip(scaled, hidden: 384, as: .rotated(bits: 4))
      #expect(relativeError(y.map { $0 / size }, x) < 0.11, "\(size)")
    }
  }
}
