import CrosspointCore
import CrosspointTestSupport
import CrosspointTokens
import Testing

@testable import CrosspointCompression

@Suite struct WireChannelTests {
  /// Rows whose channels differ in magnitude by far.
  private func uneven(_ rows: Int, _ hidden: Int, seed: UInt64) -> [Float] {
    randomFloats(rows * hidden, seed: seed).enumerated().map { $1 * ($0 % hidden % 17 == 3 ? 40 : 1) }
  }

  @Test(arguments: [1, 3, 8, 100, 128, 384]) func everyElementStaysWithinHalfAStepOfItsChannel(hidden: Int) throws {
    let groups = [4, 0, 3]
    let x = uneven(7, hidden, seed: 70)
    for bits in [8, 4] {
      let y = try roundTrip(x, hidden: hidden, groups: groups, as: .zipCache(bits: bits))
      for rows in [0..<4, 4..<7] {
        let scales = (0..<hidden).map { j in rows.map { abs(x[$0 * hidden + j]) }.max()!.squareRoot() }
        for row in rows {
          let separated = (0..<hidden).map { x[row * hidden + $0] / scales[$0] }
          let range = separated.max()! - separated.min()! + separated.map(abs).max()! / 32
          for j in 0..<hidden {
            let most = 1.02 * scales[j] * range / Float((1 << bits) - 1) / 2 + 1e-6
            #expect(abs(y[row * hidden + j] - x[row * hidden + j]) <= most)
          }
        }
      }
    }
  }

  @Test func channelsOfLargeMagnitudeCostTheOthersLessThanWithoutScales() throws {
    let hidden = 256
    let x = uneven(60, hidden, seed: 71)
    let small = x.indices.filter { $0 % hidden % 17 != 3 }
    func error(_ format: WireFormat) throws -> Double {
      let y = try roundTrip(x, hidden: hidden, as: format)
      return relativeError(small.map { y[$0] }, small.map { x[$0] })
    }
    #expect(try error(.zipCache(bits: 4)) < 0.5 * error(.int4))
    #expect(try error(.zipCache(bits: 8)) < 0.5 * error(.int8))
  }

  @Test func groupsWithRowsAndOnlyTheyCarryScales() throws {
    let hidden = 40
    let x = randomFloats(5 * hidden, seed: 72)
    for bits in [8, 4] {
      let frame = try encodeFrame(x, hidden: hidden, groups: [2, 0, 3], as: .zipCache(bits: bits))
      #expect(frame.count == FrameHeader.bytes(groups: 3) + 2 * 2 * hidden + 5 * (4 + bits * hidden / 8))
    }
  }

  /// A row with NaN or infinity decodes to NaN throughout and leaves its neighbours alone; columns of zeros stay zero.
  @Test func zeroChannelsAndNonFiniteRows() throws {
    let hidden = 24
    var x = randomFloats(4 * hidden, seed: 73)
    for row in 0..<4 { x[row * hidden + 5] = 0 }
    for bad in [Float.nan, .infinity, -.infinity] {
      x[hidden + 2] = bad
      let y = try roundTrip(x, hidden: hidden, as: .zipCache(bits: 8))
      for row in 0..<4 {
        let range = row * hidden..<(row + 1) * hidden
        #expect(y[range].allSatisfy { row == 1 ? $0.isNaN : $0.isFinite })
        if row != 1 { #expect(relativeError(Array(y[range]), Array(x[range])) < 0.02) }
      }
    }
  }

  @Test func rowsOfAnySizeKeepTheirRelativeError() throws {
    let x = randomFloats(6 * 128, seed: 74)
    for size in [Float](arrayLiteral: 1e-30, 1e-10, 1, 1e10, 1e30, 1e37) {
      let y = try roundTrip(x.map { $0 * size }, hidden: 128, as: .zipCache(bits: 8))
      #expect(relativeError(y.map { $0 / size }, x) < 0.01, "\(size)")
    }
  }
}
