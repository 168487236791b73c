import CrosspointCore
import CrosspointTestSupport
import CrosspointTokens
import Testing

@testable import CrosspointCompression

/// What a format carries comes back finite and to its error; what it does not is refused, and harms nobody.
@Suite struct BoundTests {
  static let lossy = WireFormat.all.filter { !$0.isLossless }

  /// One row far above all others costs those little, whatever it is: their error stays within a small factor.
  @Test(arguments: [6, 33, 128], [Float(1e6), 1e20, 1e33]) func oneHugeRowLeavesTheOthersAlone(
    hidden: Int, size: Float
  ) throws {
    let x = normalFloats(64 * hidden, seed: 61)
    let others = x.indices.filter { $0 / hidden != 3 }
    func error(_ rows: [Float], _ format: WireFormat) throws -> Double {
      let y = try roundTrip(rows, hidden: hidden, as: format)
      #expect(y.allSatisfy { $0.isFinite }, "\(format)")
      return relativeError(others.map { y[$0] }, others.map { x[$0] })
    }
    for format in try Self.lossy + [.entropy(bits: 8)] where size <= format.bound {
      let calm = try error(x, format)
      for isWholeRow in [true, false] {
        let huge = x.indices.map { index in
          index / hidden == 3 && (isWholeRow || index % hidden == 0) ? x[index] * size : x[index]
        }
        let error = try error(huge, format)
        // Of a mixed format the huge row takes the place of another; a channel's scale may be 8 times what it was.
        #expect(error <= (format.coding is ZipCacheFormat ? 10 : 1.6) * calm, "\(format): \(error), \(calm) without it")
      }
    }
  }

  /// A channel of zeros comes back as zeros, whatever the size of the others.
  @Test(arguments: [Float(1e-30), 1, 1e30]) func channelsOfZerosStayZero(size: Float) throws {
    let hidden = 24
    let x = normalFloats(20 * hidden, seed: 62).enumerated().map { $0 % hidden == 5 ? 0 : $1 * size }
    let y = try roundTrip(x, hidden: hidden, as: try .zipCache(bits: 8))
    for index in y.indices where index % hidden == 5 { #expect(y[index] == 0) }
    #expect(relativeError(y, x) < 0.01)
  }

  @Test func whatIsBeyondTheBoundIsRefused() throws {
    let codec = try RowCodec(hidden: 20, seed: 7, pool: BufferPool())
    for format in Self.lossy {
      var x = [Float](repeating: 1, count: 60)
      func refused(_ value: Float, _ values: AdmittedValues) throws -> Int? {
        x[29] = value
        return x.withUnsafeBufferPointer { values.firstRefused(RowPointer($0.baseAddress!), 60, bound: format.bound) }
      }
      for sign in [Float(1), -1] {
        #expect(try refused(sign * format.bound, .finite) == nil)
        for values in [AdmittedValues.finite, .bounded] {
          #expect(try refused(sign * format.bound.nextUp, values) == 29)
        }
        #expect(try refused(sign * .infinity, .finite) == 29)
        #expect(try refused(sign * .infinity, .bounded) == nil)
        #expect(try refused(.nan, .bounded) == nil)
        #expect(try refused(.nan, .finite) == 29)
      }
      x[29] = 2 * format.bound
      let error = #expect(throws: CrosspointError.self) {
        let size = codec.maximumFrameBytes(format, rows: 3, groups: 1)
        let frame = UnsafeMutableRawBufferPointer.allocate(byteCount: size, alignment: 64)
        defer { frame.deallocate() }
        let start = RowCodec.headerBytes(groups: 1)
        try x.withUnsafeBufferPointer { x in
          _ = try codec.encode(
            [RowSource(base: x.baseAddress!, rows: 3)], as: format, admitting: .bounded,
            header: UnsafeMutableRawBufferPointer(rebasing: frame[..<start]),
            body: UnsafeMutableRawBufferPointer(rebasing: frame[start...]))
        }
      }
      #expect(error?.code == .nonFinite && error!.message.contains("column 9") && error!.message.contains("\(format)"))
    }
  }
}
