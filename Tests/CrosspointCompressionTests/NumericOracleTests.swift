import CrosspointCore
import CrosspointTokens
import Foundation
import Testing

@testable import CrosspointCompression

/// Every format and rate on every kind of hostile row.
@Suite struct NumericOracleTests {
  static let rates = [0.5, 1, 2, 3, 4, 6, 8, 10]

  /// More bits never make it worse, but for the last digits that a float has. Where few elements have all the energy,
  /// their own luck with a step decides: there a bound falls.
  @Test(arguments: HostileRows.widths) func theErrorOfEntropyFallsAsTheRateRises(hidden: Int) throws {
    for rows in HostileRows.cases(hidden: hidden) {
      var last = Double.infinity
      for rate in Self.rates {
        let y = try roundTrip(rows.values, hidden: hidden, as: .entropy(bits: rate))
        #expect(y.allSatisfy { $0.isFinite }, "\(rows) at \(rate)")
        let error = rows.relativeError(y)
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
