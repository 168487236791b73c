import CrosspointCompression
import CrosspointTokens
import Foundation

/// One look at one transfer: estimates for the whole transfer from a sample of its rows; of one rank, or summed over ranks.
///
/// Way 0 sends every row; way w > 0 sends centroids of the rate `PolicyMenu.rates[w − 1]`. As bfloat16 it travels with the
/// announcements: ``write(to:ways:)``, ``add(_:ways:)``. There sums of squares, which may leave the range of a float, are
/// parts of the energy, and the energy is a significand and an exponent.
struct PolicyMeasurement: Equatable {
  static let ways = 1 + PolicyMenu.rates.count
  private static let perTrial = [Double](repeating: 0, count: PolicyMenu.trials.count)

  /// Rows that leave their rank, before any clustering that is to be decided.
  var rows = 0.0
  /// Rows that the routing sends to other ranks: what bf16 is counted of.
  var pairs = 0.0
  /// Bytes that travel beside the rows if none of them are clustered.
  var beside = 0.0
  /// Σ‖x‖² of the rows.
  var energy = 0.0
  /// Of each way the rows sent; zero where it is not to be decided about.
  var kept = [Double](repeating: 0, count: ways)
  /// Of each way Σ‖x − c‖².
  var residuals = [Double](repeating: 0, count: ways)
  /// Of each way and trial Σ‖ĉ − c‖² over the tokens, and the bytes of all bodies.
  var errors = [[Double]](repeating: perTrial, count: ways)
  var bytes = [[Double]](repeating: perTrial, count: ways)

  /// Where a record is put together.
  private var scratch = [Float](repeating: 0, count: numbers(ways: ways))

  private static func numbers(ways: Int) -> Int { 6 + 2 * ways * (1 + PolicyMenu.trials.count) }

  /// Words of 32 bits that a record of so many ways takes.
  static func words(ways: Int) -> Int { (numbers(ways: ways) + 1) / 2 }

  /// Calls `body` with every number in the order of the record, and whether it is a sum of squares.
  private mutating func forEach(ways: Int = Self.ways, _ body: (_ number: inout Double, _ isSquare: Bool) -> Void) {
    body(&rows, false)
    body(&pairs, false)
    body(&beside, false)
    body(&energy, true)
    for way in 0..<ways {
      body(&kept[way], false)
      body(&residuals[way], true)
      for trial in PolicyMenu.trials.indices {
        body(&errors[way][trial], true)
        body(&bytes[way][trial], false)
      }
    }
  }

  /// Sets every number to zero.
  mutating func clear() { forEach { number, _ in number = 0 } }

  /// Writes this rank's numbers.
  mutating func write(to record: UnsafeMutableRawPointer, ways: Int) {
    var (next, scratch) = (2, exchange(&scratch, with: []))
    let isNumber = energy.isFinite && energy > 0
    scratch[0] = isNumber ? Float(energy.significand) : Float(energy)
    scratch[1] = isNumber ? Float(energy.exponent) : 0
    let unit = isNumber ? energy : 1
    forEach(ways: ways) { number, isSquare in
      scratch[next] = Float(isSquare ? number / unit : number)
      next += 1
    }
    kernels.bf16_encode(record, scratch, next, 1)
    self.scratch = scratch
  }

  /// Adds a rank's numbers; in rank order, so that every rank gets the same bits.
  mutating func add(_ record: UnsafeRawPointer, ways: Int) {
    var (next, scratch) = (2, exchange(&scratch, with: []))
    kernels.bf16_decode(&scratch, record, Self.numbers(ways: ways), 1)
    let unit = Double(scratch[0]) * exp2(Double(scratch[1]))
    forEach(ways: ways) { number, isSquare in
      // Without energy there are no parts of it.
      number += Double(scratch[next]) * (isSquare && unit != 0 ? unit : 1)
      next += 1
    }
    self.scratch = scratch
  }

  /// Whether there is anything to decide by: rows, and numbers that are some.
  var isUsable: Bool {
    rows > 0 && pairs > 0 && energy.isFinite && residuals.allSatisfy(\.isFinite)
      && errors.allSatisfy { $0.allSatisfy(\.isFinite) }
  }

  /// What a way and a code would give: relative error, and bytes of bodies and of what is beside them.
  ///
  /// Residual and coding error are orthogonal, since a centroid is a mean: their squares add.
  func estimate(way: Int, code: PolicyMenu.Code, hidden: Int) -> (error: Double, bytes: Double) {
    func total(_ coding: Double) -> Double { share(residuals[way] + coding).squareRoot() }
    let beside = rows == 0 ? 0 : beside * kept[way] / rows
    switch code {
    case .fp32: return (total(0), kept[way] * Double(4 * hidden) + beside)
    case .fixed(let index): return (total(errors[way][index]), bytes[way][index] + beside)
    case .entropy(let bits):
      // An octave of error for each bit or so: logarithms are nearly straight.
      let first = PolicyMenu.formats.count
      let least = max(1e-30 * energy, .leastNormalMagnitude)
      let logarithm = PolicyMenu.interpolate(bits) { log2(max(errors[way][first + $0], least)) }
      return (total(exp2(logarithm)), PolicyMenu.interpolate(bits) { bytes[way][first + $0] } + beside)
    }
  }

  private func share(_ part: Double) -> Double { part == 0 ? 0 : energy == 0 ? 1 : part / energy }
}

/// Takes a value out and leaves another.
private func exchange<T>(_ value: inout T, with other: T) -> T {
  defer { value = other }
  return value
}
