import CrosspointCore
import CrosspointTestSupport
import CrosspointTokens
import Testing

@testable import CrosspointCompression

@Suite struct WireFormatTests {
  static let shapes = [1, 3, 8, 100, 128, 384, 1000]

  @Test func textAndCodeNameEveryFormatUniquely() throws {
    for format in WireFormat.all {
      #expect(WireFormat(format.description) == format)
      // What entropy-coded rows take is no part of their code.
      let coded = WireFormat(code: format.code)
      #expect(format.hasFixedRows ? coded == format : coded?.hasFixedRows == false)
    }
    #expect(try WireFormat("entropy:1.25") == .entropy(bits: 1.25) && WireFormat("entropy:1.25")?.bits == 2)
    #expect(WireFormat.all.map(\.description).contains("rotated:4"))
    #expect(try WireFormat("mixed:2,4") == .mixed(low: 2, high: 4))
    #expect(WireFormat("mixed:2,4,0.25") == WireFormat("mixed:2,4"))
    #expect(WireFormat("mixed:1,8,0.0625")?.rate == 1.4375 && WireFormat("mixed:1,8,0.0625")?.bits == 2)
    for text in [
      "", "fp64", "rotated", "rotated:0", "rotated:9", "rotated:", "bf16 ", "entropy:", "entropy:0", "entropy:10.5",
      "entropy:nan", "mixed:", "mixed:2", "mixed:4,2", "mixed:3,3", "mixed:0,4", "mixed:4,9", "mixed:2,4,",
      "mixed:2,4,0.3", "mixed:2,4,1", "mixed:2,4,nan", "mixed:2,4,0.5,1", "mixed:2,4 ",
    ] {
      #expect(WireFormat(text) == nil, "\(text)")
    }
    #expect(WireFormat(code: 0) == nil && WireFormat(code: 0x0907) == nil)
    // All numbers that a mixed format can have stand for one with these bits, or for none.
    for number in UInt16(0)..<256 {
      let format = WireFormat(code: 10 | number << 8)
      #expect((format != nil) == (number & 7 < number >> 3 & 7), "\(number)")
      if let format { #expect(format.code == 10 | number << 8 && WireFormat(format.description) == format) }
    }
  }

  @Test(arguments: shapes) func fp32IsBitwise(hidden: Int) throws {
    let x = randomPatterns(7 * hidden, seed: 1)
    let y = try roundTrip(x, hidden: hidden, groups: [2, 0, 4, 1], as: .fp32)
    #expect(firstBitDifference(x, y) == nil)
  }

  @Test func bf16RoundsToNearestEven() throws {
    let x = awkwardFloats + randomPatterns(5000, seed: 2)
    let y = try roundTrip(x, hidden: x.count, as: .bf16)
    for (x, y) in zip(x, y) {
      if x.isNaN {
        #expect(y.isNaN)
      } else {
        #expect(y.bitPattern == referenceBF16(x).bitPattern, "\(x) gave \(y)")
      }
    }
  }

  /// Among the two neighbours the nearer one, at a tie the one with an even last bit.
  private func referenceBF16(_ x: Float) -> Float {
    let down = Float(bitPattern: x.bitPattern & 0xFFFF_0000)
    guard x.isFinite else { return x }
    let up = Float(bitPattern: down.bitPattern &+ 0x1_0000)
    let upper = up.isFinite ? Double(up) : Double(sign: x.sign, exponent: 128, significand: 1)
    let (below, above) = (abs(Double(x) - Double(down)), abs(upper - Double(x)))
    if below == above { return down.bitPattern & 0x1_0000 == 0 ? down : up }
    return below < above ? down : up
  }

  #if !(os(macOS) && arch(x86_64))
    @Test func fp16IsTheProcessorsHalf() throws {
      let x = awkwardFloats + randomPatterns(5000, seed: 3) + randomFloats(2000, seed: 4)
      let y = try roundTrip(x, hidden: x.count, as: .fp16)
      for (x, y) in zip(x, y) {
        #expect(x.isNaN ? y.isNaN : y.bitPattern == Float(Float16(x)).bitPattern, "\(x) gave \(y)")
      }
    }
  #endif

  @Test func fp8TakesTheNearestValueOfE4M3() throws {
    let values = (0..<127).map { code -> Float in
      let (exponent, mantissa) = (code >> 3, Float(code & 7))
      return exponent == 0
        ? mantissa * 0x1p-9 : (1 + mantissa / 8) * Float(sign: .plus, exponent: exponent - 7, significand: 1)
    }
    let x = [448] + randomFloats(126, seed: 5).map { $0 * 60 } + [0x1p-9]
    let y = try roundTrip(x, hidden: 128, as: .fp8)  // largest 448: scale 1
    for (x, y) in zip(x, y) {
      let nearest = values.map { abs($0 - abs(x)) }.min()!
      #expect(values.contains(abs(y)) && abs(y - x) == nearest, "\(x) gave \(y)")
    }
  }

  @Test(arguments: shapes) func fp8StaysWithinASixteenthOfTheElementOrItsBlock(hidden: Int) throws {
    let x = randomFloats(4 * hidden, seed: 6)
    let y = try roundTrip(x, hidden: hidden, as: .fp8)
    for row in 0..<4 {
      for start in stride(from: 0, to: hidden, by: 128) {
        let block = row * hidden + start..<row * hidden + min(start + 128, hidden)
        let most = x[block].map(abs).max()!
        for i in block { #expect(abs(y[i] - x[i]) <= max(abs(x[i]) / 16, most / 448 * 0x1p-9) * 1.01) }
      }
    }
  }

  @Test(arguments: shapes) func integersStayWithinHalfAStep(hidden: Int) throws {
    let x = randomFloats(5 * hidden, seed: 8).map { $0 * 3 + 1 }
    for format in [WireFormat.int8, .int4] {
      let y = try roundTrip(x, hidden: hidden, groups: [3, 2], as: format)
      let levels = Float((1 << format.bits) - 1)
      for row in 0..<5 {
        let range = row * hidden..<(row + 1) * hidden
        let (low, high) = (x[range].min()!, x[range].max()!)
        let step = ((high - low) + abs(low) / 128) / levels * 1.01
        for i in range { #expect(abs(y[i] - x[i]) <= step / 2 + 1e-6) }
      }
    }
  }

  @Test func awkwardRowsNeverCrashAndNothingNonFiniteTurnsFinite() throws {
    for hidden in Self.shapes {
      var rows: [[Float]] = [Float(0), -0.0, 1, -3.5, 1e-38, 1e-44, 1e30, -1e38].map {
        [Float](repeating: $0, count: hidden)
      }
      for bad in [Float.nan, .infinity, -.infinity] {
        var row = randomFloats(hidden, seed: 9)
        row[hidden / 2] = bad
        rows.append(row)
      }
      for format in WireFormat.all {
        for row in rows {
          let y = try roundTrip(row + row, hidden: hidden, as: format)
          let bad = row[hidden / 2]
          if !bad.isFinite {
            #expect(!y[hidden / 2].isFinite, "\(format) \(bad)")
          } else if abs(bad) <= 65504 {
            #expect(y.allSatisfy { $0.isFinite }, "\(format) \(bad)")
          }
          if bad == 0 { #expect(y.allSatisfy { $0 == 0 }, "\(format)") }
        }
      }
    }
  }

  @Test func constantRowsStayNearTheirConstant() throws {
    for format in WireFormat.all where format.bits >= 4 {
      let y = try roundTrip([Float](repeating: -3.3, count: 4 * 384), hidden: 384, as: format)
      #expect(y.allSatisfy { abs($0 + 3.3) < 0.5 }, "\(format): \(y[0])")
    }
  }

  @Test func gatheredRowsEncodeAsContiguousOnes() throws {
    let hidden = 40
    let x = randomFloats(10 * hidden, seed: 11)
    let order: [Int32] = [3, 3, 9, 0, 7]
    let gathered = order.flatMap { x[Int($0) * hidden..<(Int($0) + 1) * hidden] }
    for format in WireFormat.all {
      let expected = try encodeFrame(gathered, hidden: hidden, groups: [5], as: format)
      let codec = try RowCodec(hidden: hidden, seed: 7, pool: BufferPool())
      var frame = [UInt8](repeating: 0, count: codec.maximumFrameBytes(format, rows: 5, groups: 1))
      let size = try frame.withUnsafeMutableBytes { frame in
        try x.withUnsafeBufferPointer { x in
          try order.withUnsafeBufferPointer { order in
            try codec.encode(
              [RowSource(base: x.baseAddress!, indices: order.baseAddress!, rows: 5)], as: format,
              into: frame)
          }
        }
      }
      #expect(Array(frame.prefix(size)) == expected, "\(format)")
    }
  }

  @Test func steadyStateAllocatesNothing() throws {
    let pool = BufferPool()
    let codec = try RowCodec(hidden: 96, seed: 7, pool: pool)
    let x = randomFloats(200 * 96, seed: 12)
    var warm = 0
    for round in 0..<4 {
      for format in WireFormat.all {
        let frame = try encodeFrame(x, hidden: 96, groups: [150, 50], as: format, codec: codec)
        _ = try decodeFrame(frame, hidden: 96, groups: [150, 50], codec: codec)
      }
      if round == 0 { warm = pool.allocations }
    }
    #expect(pool.allocations == warm)
  }

  @Test func bitsThatNoFormatHasAreRefusedByName() throws {
    func refused(_ make: () throws -> WireFormat, _ text: String) {
      let error = #expect(throws: CrosspointError.self) { _ = try make() }
      #expect(error?.code == .invalidArgument && error?.argument == "format", "\(text)")
      #expect(error?.message.hasPrefix("'\(text)'") == true, "\(String(describing: error))")
    }
    for bits in [Int.min, -1, 0, 9, Int.max] { refused({ try .rotated(bits: bits) }, "rotated:\(bits)") }
    for bits in [0, 1, 5, 16] { refused({ try .zipCache(bits: bits) }, "zipcache:\(bits)") }
    for bits in [0, 0.09, 10.01, -.infinity, .infinity, .nan] {
      refused({ try .entropy(bits: bits) }, "entropy:\(bits)")
    }
    for (low, high, fraction) in [(2, 2, 0.25), (4, 2, 0.25), (0, 3, 0.25), (1, 9, 0.25), (1, 2, 0.3), (1, 2, .nan)] {
      refused({ try .mixed(low: low, high: high, fraction: fraction) }, "mixed:\(low),\(high),\(fraction)")
    }
    for bits in 1...8 { #expect(try "\(WireFormat.rotated(bits: bits))" == "rotated:\(bits)") }
  }

  @Test func aMisspeltFormatIsToldWhatIsNear() {
    for (text, near) in [
      ("rotated:9", "rotated:BITS (1 to 8)?"), ("rotate:4", "rotated:BITS (1 to 8)?"), ("int5", "int8, int4?"),
      ("zipcache:5", "(8 or 4)?"), ("mixed:4,2", "(1 to 8 bits, fewer first;"), ("entropy:11", "(0.1 to 10,"),
      ("fp64", "one of fp32, bf16"), ("", "one of fp32, bf16"),
    ] {
      let error = #expect(throws: CrosspointError.self) { try WireFormat(named: text) }
      #expect(error?.message.contains(near) == true, "\(String(describing: error))")
    }
    for (text, near) in [
      ("lsh:function=2", "functions=VALUE?"), ("lsh:functions", "functions=VALUE?"), ("lsh:x=2", "width, centred"),
      ("lsh:width=wide", "width cannot be 'wide'"), ("lash", "off, lsh-moe, lsh"),
    ] {
      let error = #expect(throws: CrosspointError.self) { try ClusterOptions(named: text) }
      #expect(error?.message.contains(near) == true, "\(String(describing: error))")
    }
  }
}
