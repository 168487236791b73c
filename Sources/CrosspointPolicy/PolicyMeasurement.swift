import CrosspointCompression
import CrosspointTokens
import Glibc

/// One sample of one transfer: estimates for the whole transfer from a sample of its rows; of one rank, or summed over ranks.
///
/// Clustering 0 sends every row; clustering c > 0 sends centroids of the rate `PolicyMenu.rates[c − 1]`. As bfloat16 it travels
/// with the announcements: ``write(to:clusterings:)``, ``add(_:clusterings:)``. There sums of squares, which may leave the range of a float, are
/// parts of the energy, and the energy is a significand and an exponent.
struct PolicyMeasurement: Equatable {
  static let clusterings = 1 + PolicyMenu.rates.count
  private static let perTrial = [Double](repeating: 0, count: PolicyMenu.trials.count)

  /// Rows that leave their rank, before any clustering that is to be decided.
  var rows = 0.0
  /// Rows that the routing sends to other ranks: what bf16 is counted of.
  var pairs = 0.0
  /// Bytes of metadata that travel with the rows if none of them are clustered.
  var metadataBytes = 0.0
  /// Bytes that keeping a memory takes in each step, whatever is chosen.
  var standingBytes = 0.0
  /// Σ‖x‖² of the rows.
  var energy = 0.0
  /// Of each clustering the rows sent; zero where it is not to be decided about.
  var kept = [Double](repeating: 0, count: clusterings)
  /// Of each clustering Σ‖x − c‖².
  var residuals = [Double](repeating: 0, count: clusterings)
  /// Of each clustering and trial Σ‖ĉ − c‖² over the tokens, and the bytes of all bodies.
  var errors = [[Double]](repeating: perTrial, count: clusterings)
  var bytes = [[Double]](repeating: perTrial, count: clusterings)

  /// Where a record is put together.
  private var scratch = [Float](repeating: 0, count: numbers(clusterings: clusterings))

  private static func numbers(clusterings: Int) -> Int { 7 + 2 * clusterings * (1 + PolicyMenu.trials.count) }

  /// Words of 32 bits that a record of so many clusterings takes.
  static func words(clusterings: Int) -> Int { (numbers(clusterings: clusterings) + 1) / 2 }

  /// Calls `body` with every number in the order of the record, and whether it is a sum of squares.
  private mutating func forEach(
    clusterings: Int = Self.clusterings, _ body: (_ number: inout Double, _ isSquare: Bool) -> Void
  ) {
    body(&rows, false)
    body(&pairs, false)
    body(&metadataBytes, false)
    body(&standingBytes, false)
    body(&energy, true)
    for clustering in 0..<clusterings {
      body(&kept[clustering], false)
      body(&residuals[clustering], true)
      for trial in PolicyMenu.trials.indices {
        body(&errors[clustering][trial], true)
        body(&bytes[clustering][trial], false)
      }
    }
  }

  /// Sets every number to zero.
  mutating func clear() { forEach { number, _ in number = 0 } }

  /// Writes this rank's numbers.
  mutating func write(to record: UnsafeMutableRawPointer, clusterings: Int) {
    var (next, scratch) = (2, exchange(&scratch, with: []))
    let isNumber = energy.isFinite && energy > 0
    scratch[0] = isNumber ? Float(energy.significand) : Float(energy)
    scratch[1] = isNumber ? Float(energy.exponent) : 0
    let unit = isNumber ? energy : 1
    forEach(clusterings: clusterings) { number, isSquare in
      scratch[next] = Float(isSquare ? number / unit : number)
      next += 1
    }
    kernels.bf16_encode(record, scratch, next, 1)
    self.scratch = scratch
  }

  /// Adds a rank's numbers; in rank order, so that every rank gets the same bits.
  mutating func add(_ record: UnsafeRawPointer, clusterings: Int) {
    var (next, scratch) = (2, exchange(&scratch, with: []))
    kernels.bf16_decode(&scratch, record, Self.numbers(clusterings: clusterings), 1)
    let unit = Double(scratch[0]) * exp2(Double(scratch[1]))
    forEach(clusterings: clusterings) { number, isSquare in
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

  /// What a clustering and a code would give: relative error, and bytes of bodies and metadata.
  ///
  /// Residual and coding error are orthogonal, since a centroid is a mean: their squares add.
  func estimate(clustering: Int, code: PolicyMenu.Code, hidden: Int) -> (error: Double, bytes: Double) {
    func total(_ coding: Double) -> Double { share(residuals[clustering] + coding).squareRoot() }
    let metadata = (rows == 0 ? 0 : metadataBytes * kept[clustering] / rows) + standingBytes
    switch code {
    case .fp32: return (total(0), kept[clustering] * Double(4 * hidden) + metadata)
    case .fixed(let index): return (total(errors[clustering][index]), bytes[clustering][index] + metadata)
    case .entropy(let bits):
      // An octave of error for each bit or so: logarithms are nearly straight.
      let first = PolicyMenu.formats.count
      let least = max(1e-30 * energy, .leastNormalMagnitude)
      let logarithm = PolicyMenu.interpolate(bits) { log2(max(errors[clustering][first + $0], least)) }
      return (total(exp2(logarithm)), PolicyMenu.interpolate(bits) { bytes[clustering][first + $0] } + metadata)
    }
  }

  private func share(_ part: Double) -> Double { part == 0 ? 0 : energy == 0 ? 1 : part / energy }
}

/// Takes a value out and leaves another.
private func exchange<T>(_ value: inout T, with other: T) -> T {
  defer { value = other }
  return value
}
