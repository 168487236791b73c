import CrosspointCore
import Testing

@testable import CrosspointCompression

/// Every format of fixed size on every kind of hostile row, against ``FormatReference``.
@Suite struct FixedFormatOracleTests {
  static let formats: [WireFormat] =
    [.fp32, .bf16, .fp16, .fp8, .int8, .int4] + (1...8).map { try! .rotated(bits: $0) }
    + ["mixed:1,8,0.0625", "mixed:2,4", "mixed:3,6,0.5"].map { WireFormat($0)! }

  @Test(arguments: HostileRows.widths) func theErrorIsWithinWhatTheDocumentStates(hidden: Int) throws {
    for rows in HostileRows.cases(hidden: hidden) {
      for format in Self.formats {
        let y = try roundTrip(rows.values, hidden: hidden, as: format)
        if let allowed = FormatReference(format: format, rows: rows).allowed {
          let worst = zip(zip(rows.values, y), allowed).first { pair, most in
            !(abs(Double(pair.0) - Double(pair.1)) <= most)
          }
          #expect(worst == nil, "\(format), \(rows): \(String(describing: worst))")
        }
        if let share = FormatReference(format: format, rows: rows).allowedShare {
          let error = rows.relativeError(y)
          #expect(error <= share, "\(format), \(rows): \(error), allowed \(share)")
        }
      }
    }
  }

  /// Rows of one large element alone become rows of equal magnitudes, which lie anywhere between two levels: there only the
  /// share that the reference allows falls.
  @Test(arguments: [33, 128]) func theErrorFallsAsTheBitsRise(hidden: Int) throws {
    for rows in HostileRows.cases(hidden: hidden) where rows.energyIsSpread && rows.everyRowIsSpread {
      var last = Double.infinity
      for bits in 1...8 {
        let error = rows.relativeError(try roundTrip(rows.values, hidden: hidden, as: .rotated(bits: bits)))
        #expect(error < 0.75 * last, "\(rows): \(error) with \(bits) bits, \(last) before")
        last = error
      }
    }
  }

  @Test(arguments: HostileRows.widths) func finiteRowsStayFiniteAndApart(hidden: Int) throws {
    for rows in HostileRows.cases(hidden: hidden) {
      for format in Self.formats + [8, 4].map({ try! .zipCache(bits: $0) }) where format != .fp16 {
        let y = try roundTrip(rows.values, hidden: hidden, as: format)
        #expect(y.allSatisfy { $0.isFinite }, "\(format), \(rows)")
      }
    }
  }
}

extension HostileRows {
  /// Whether the energy of every row that has any is that of more than six elements.
  fileprivate var everyRowIsSpread: Bool {
    stride(from: 0, to: values.count, by: hidden).allSatisfy { start in
      let row = values[start..<start + hidden]
      let most = Double(row.reduce(0) { max($0, abs($1)) })
      guard most > 0 else { return true }
      let squares = row.map { (Double($0) / most) * (Double($0) / most) }
      let (sum, fourth) = squares.reduce((0, 0)) { ($0.0 + $1, $0.1 + $1 * $1) }
      return sum * sum / fourth > 6
    }
  }
}
