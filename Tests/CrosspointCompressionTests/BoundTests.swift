import CrosspointCore
import CrosspointTokens
import Testing

@testable import CrosspointCompression

/// What a format carries comes back finite and to its error; what it does not is refused, and harms nobody.
@Suite struct BoundTests {
  static let lossy = WireFormat.all.filter { !$0.isLossless }

  /// The most that a row's root mean square error is of its largest magnitude, by docs/wire-format.md in plain words.
  static func mostError(_ format: WireFormat) -> Double {
    switch format.coding {
    case is FP32Format: 0
    case is BF16Format: 0x1p-8
    case is FP16Format: 0x1p-11
    case is FP8Format: 0x1p-4
    case is UniformFormat: 1.02 / Double(1 << format.bits - 1)
    // Scales of channels and rotated rows spread an error over the row; a lone value can be off by the outermost cell.
    default: 1
    }
  }

  @Test(arguments: HostileRows.widths) func whatIsWithinTheBoundComesBackFiniteAndNear(hidden: Int) throws {
    for rows in HostileRows.cases(hidden: hidden) {
      for format in Self.lossy where rows.values.allSatisfy({ abs($0) <= format.bound }) {
        let y = try roundTrip(rows.values, hidden: hidden, as: format)
        #expect(y.allSatisfy { $0.isFinite }, "\(rows) as \(format)")
        // Below 2^−100 a step is no normal float; fp16 ends at 2^−24.
        let least = format == .fp16 ? 0x1p-24 : 0x1p-126
        for row in 0..<rows.rows where !(format.coding is EntropyFormat || format.coding is ZipCacheFormat) {
          let range = row * hidden..<(row + 1) * hidden
          let most = rows.values[range].reduce(0) { max($0, Double(abs($1))) }
          let worst = range.reduce(0) { max($0, abs(Double(rows.values[$1]) - Double(y[$1]))) }
          let allowed = Self.mostError(format) * (format.coding.centres ? Double(hidden).squareRoot() * 1.5 : 1)
          #expect(worst <= allowed * most + least, "\(rows) as \(format), row \(row): \(worst) of \(most)")
        }
      }
    }
  }

  /// The bound falls with every bit; so does the error itself where no single element decides it.
  @Test(arguments: [3, 7, 33, 128]) func theErrorFallsAsTheBitsRise(hidden: Int) throws {
    // Twice the root of the share of energy that docs/wire-format.md states.
    let rotated = try [0.363, 0.1175, 0.0345, 0.0095, 0.0025, 0.00064, 0.00016, 0.00004].enumerated().map {
      (try WireFormat.rotated(bits: $0 + 1), 2 * $1.squareRoot())
    }
    let ladders: [[(WireFormat, Double)]] = try [
      rotated, [(.int4, 1.0 / 15), (.int8, 1.0 / 255)], [(.zipCache(bits: 4), 0.3), (.zipCache(bits: 8), 0.02)],
    ]
    for rows in HostileRows.cases(hidden: hidden) where rows.energyIsSpread {
      for ladder in ladders {
        var last = Double.infinity
        for (format, bound) in ladder {
          let error = rows.relativeError(try roundTrip(rows.values, hidden: hidden, as: format))
          let most = format.coding is UniformFormat ? bound * Double(hidden).squareRoot() : bound
          #expect(error <= most, "\(rows) as \(format): \(error)")
          if rows.isPlain { #expect(error < last, "\(rows) as \(format): \(error), \(last) before") }
          last = error
        }
      }
    }
  }

  /// One row far above all others costs those little, whatever it is: their error stays within a small factor.
  @Test(arguments: [6, 33, 128], [Float(1e6), 1e20, 1e33]) func oneHugeRowLeavesTheOthersAlone(
    hidden: Int, size: Float
  ) throws {
    let x = normalFloats(64 * hidden, seed: 61)
    let others = x.indices.filter { $0 / hidden != 3 }
    func error(_ rows: [Float], _ format: WireFormat) throws -> Double {
      let y = try roundTrip(rows, hidden: hidden, as: format)
      #expect(y.allSatisfy { $0.isFinite }, "\(format)")
      return HostileRows.relativeError(others.map { x[$0] }, others.map { y[$0] })
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
    #expect(HostileRows.relativeError(x, y) < 0.01)
  }

  @Test func whatIsBeyondTheBoundIsRefused() throws {
    let codec = try RowCodec(hidden: 20, seed: 7, pool: BufferPool())
    for format in Self.lossy {
      var x = [Float](repeating: 1, count: 60)
      func refused(_ value: Float, _ values: AdmittedValues) throws -> Int? {
        x[29] = value
        return x.withUnsafeBufferPointer { values.firstRefused($0.baseAddress!, 60, format) }
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
