import CrosspointCore
import CrosspointTestSupport
import CrosspointTokens
import Foundation
import Testing

@testable import CrosspointCompression

/// Every format and rate on every kind of hostile row, against ``FormatReference``.
@Suite struct NumericOracleTests {
  static let formats: [WireFormat] =
    [.fp32, .bf16, .fp16, .fp8, .int8, .int4] + (1...8).map { try! .rotated(bits: $0) }
    + [8, 4].map { try! .zipCache(bits: $0) }
    + ["mixed:1,8,0.0625", "mixed:2,4", "mixed:3,6,0.5"].map { WireFormat($0)! }

  @Test(arguments: HostileRows.widths) func theErrorIsFiniteAndWithinWhatTheDocumentStates(hidden: Int) throws {
    for rows in HostileRows.cases(hidden: hidden) {
      for format in Self.formats {
        let y = try roundTrip(rows.values, hidden: hidden, as: format)
        if rows.values.allSatisfy({ abs($0) <= format.bound }) {
          #expect(y.allSatisfy { $0.isFinite }, "\(format), \(rows)")
        }
        if let allowed = FormatReference(format: format, rows: rows).allowed {
          let worst = zip(zip(rows.values, y), allowed).first { pair, most in
            !(abs(Double(pair.0) - Double(pair.1)) <= most)
          }
          #expect(worst == nil, "\(format), \(rows): \(String(describing: worst))")
        }
        if let share = FormatReference(format: format, rows: rows).allowedShare {
          let error = relativeError(y, rows.values)
          #expect(error <= share, "\(format), \(rows): \(error), allowed \(share)")
        }
      }
    }
  }

  /// Finite floats beyond a format's bound, in a column, a row, one element: each refused with the format and its bound;
  /// fp32, which has none, carries them.
  @Test(arguments: HostileRows.widths, [Float(1e35), 1e37, .greatestFiniteMagnitude])
  func beyondTheirBoundEveryFormatRefusesByName(hidden: Int, size: Float) throws {
    for rows in HostileRows.large(hidden: hidden, size: size) {
      for format in try Self.formats + [0.1, 1, 4, 10].map({ try WireFormat.entropy(bits: $0) }) {
        let encode = {
          try encodeFrame(rows.values, hidden: hidden, groups: [rows.rows], as: format, admitting: .finite)
        }
        guard format != .fp32 else {
          #expect(try decodeFrame(encode(), hidden: hidden, groups: [rows.rows]) == rows.values)
          continue
        }
        let error = #expect(throws: CrosspointError.self, "\(format), \(rows)") { _ = try encode() }
        let names = "\(format) carries magnitudes up to \(format.bound)"
        #expect(error?.code == .nonFinite && error?.message.contains(names) == true, "\(String(describing: error))")
      }
    }
  }

  /// Rows of one large element alone become rows of equal magnitudes, which lie anywhere between two levels: there only the
  /// share that the reference allows falls.
  @Test(arguments: [33, 128]) func theErrorFallsAsTheBitsRise(hidden: Int) throws {
    for rows in HostileRows.cases(hidden: hidden) where rows.energyIsSpread && rows.everyRowIsSpread {
      var last = Double.infinity
      for bits in 1...8 {
        let error = relativeError(try roundTrip(rows.values, hidden: hidden, as: .rotated(bits: bits)), rows.values)
        #expect(error < 0.75 * last, "\(rows): \(error) with \(bits) bits, \(last) before")
        last = error
      }
    }
  }

  /// The bound falls with every bit; so does the error itself where no single element decides it.
  @Test(arguments: [3, 7, 33, 128]) func theErrorIsBoundedAndFallsAsTheBitsRise(hidden: Int) throws {
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
          let error = relativeError(try roundTrip(rows.values, hidden: hidden, as: format), rows.values)
          let most = format.coding is UniformFormat ? bound * Double(hidden).squareRoot() : bound
          #expect(error <= most, "\(rows) as \(format): \(error)")
          // The ends of a row's range come back as they are: where they have all the energy, more bits gain nothing.
          if rows.isPlain || (!format.coding.rotates && rows.everyRowIsSpread) {
            #expect(error < last, "\(rows) as \(format): \(error), \(last) before")
          }
          last = error
        }
      }
    }
  }

  static let rates = [0.5, 1, 2, 3, 4, 6, 8, 10]

  /// More bits never make it worse, but for the last digits that a float has. Where few elements have all the energy,
  /// their own luck with a step decides: there a bound falls.
  @Test(arguments: HostileRows.widths) func theErrorOfEntropyFallsAsTheRateRises(hidden: Int) throws {
    for rows in HostileRows.cases(hidden: hidden) {
      var last = Double.infinity
      for rate in Self.rates {
        let y = try roundTrip(rows.values, hidden: hidden, as: .entropy(bits: rate))
        #expect(y.allSatisfy { $0.isFinite }, "\(rows) at \(rate)")
        let error = relativeError(y, rows.values)
        if rows.energyIsSpread {
          #expect(error <= 1.03 * last + 2e-7, "\(rows): \(error) at \(rate) bits, \(last) before")
        } else {
          #expect(error <= max(4 * exp2(-rate), 2e-7), "\(rows): \(error) at \(rate) bits")
        }
        last = error
      }
      #expect(last < 0.01, "\(rows): \(last) at 10 bits")
    }
  }
}
