import CCrosspointKernels
import CrosspointCore
import CrosspointTokens

#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// What the encoder of entropy-coded rows finds out before it codes: means, norms of rows, spreads of columns.
extension RowCodec {
  /// A residual's norm counts for at least this part of its row's: what is smaller is rounding of the mean.
  private static let leastResidual: Float = 0x1p-10
  /// Rows from which columns have spreads of their own.
  private static let worthColumns = 16

  /// Copies the rows of a group without their mean, if that pays; says whether it does.
  ///
  /// n rows of which centring leaves the part ρ of the energy save ½ log₂(1/ρ) bits per element each; the mean costs
  /// about 6.
  func centre(
    _ group: RowSource, group index: Int, from first: Int, requiringFinite: Bool, _ space: EntropyWorkspace
  ) throws(CrosspointError) -> Bool {
    let mean = space.means + index * hidden
    mean.update(repeating: 0, count: hidden)
    var energy = 0.0
    var finite = 0
    for row in 0..<group.rows {
      let source = group.row(row, hidden: hidden)
      let copy = space.residuals + (first + row) * hidden
      memcpy(copy, source, 4 * hidden)
      if requiringFinite { try requireFinite(copy) }
      let norm = rootMeanSquare(copy, energy: kernels.dot(copy, copy, hidden))
      space.norms[first + row] = norm
      guard norm.isFinite else { continue }
      kernels.axpy(mean, 1, copy, hidden)
      energy += Double(norm) * Double(norm)
      finite += 1
    }
    guard finite > 1 else { return false }
    kernels.scale(mean, 1 / Float(finite), mean, hidden)
    let common = rootMeanSquare(mean, energy: kernels.dot(mean, mean, hidden))
    let remaining = 1 - Double(finite) * Double(common) * Double(common) / energy
    guard remaining.isFinite, common.isFinite, Double(finite) * -log2(max(remaining, 1e-12)) > 12 else { return false }
    for row in first..<first + group.rows where space.norms[row].isFinite {
      let residual = space.residuals + row * hidden
      kernels.axpy(residual, -1, mean, hidden)
      let norm = rootMeanSquare(residual, energy: kernels.dot(residual, residual, hidden))
      space.norms[row] = norm > 0 ? max(norm, Self.leastResidual * space.norms[row]) : 0
    }
    return true
  }

  /// The geometric mean of the norms of all ordinary rows, and how many there are.
  func typicalNorm(_ rows: Int, _ space: EntropyWorkspace) -> (norm: Float, rows: Int) {
    var sum = 0.0
    var count = 0
    for row in 0..<rows where space.norms[row].isFinite && space.norms[row] > 0 {
      sum += log2(Double(space.norms[row]))
      count += 1
    }
    return (count == 0 ? 1 : Float(exp2(sum / Double(count))), count)
  }

  /// Codes a group's mean and takes from its rows what the receiver will add: the mean as coded.
  func sharpen(group index: Int, rows: Range<Int>, _ header: EntropyBody, _ space: EntropyWorkspace) {
    let mean = space.means + index * hidden
    let coded = scratchRow(0)
    meanCodes(header, group: index, space)
    Self.meanRow(space.integers, hidden, header, into: coded)
    kernels.axpy(mean, -1, coded, hidden)
    for row in rows where space.norms[row].isFinite { kernels.axpy(space.residuals + row * hidden, 1, mean, hidden) }
    mean.update(from: coded, count: hidden)
  }

  func meanCodes(_ form: EntropyBody, group: Int, _ space: EntropyWorkspace) {
    let mean = space.means + group * hidden
    for column in 0..<hidden {
      let code = (mean[column] / form.meanStep).rounded()
      space.integers[column] = Int32(min(max(code, -65535), 65535))
    }
  }

  /// The spread of each column, times the typical norm.
  func measureSpreads(_ rows: Int, ordinary: Int, typical: Float, _ space: EntropyWorkspace) {
    guard ordinary >= Self.worthColumns else { return space.spreads.update(repeating: typical, count: hidden) }
    space.spreads.update(repeating: 0, count: hidden)
    for row in 0..<rows where space.norms[row].isFinite && space.norms[row] > 0 {
      kernels.axpy_squares(space.spreads, 1 / space.norms[row], space.residuals + row * hidden, hidden)
    }
    for column in 0..<hidden {
      space.spreads[column] = (space.spreads[column] / Float(ordinary)).squareRoot() * typical
    }
  }

  /// Classes of the columns at a step, and the weights that make every column count alike in a row's spread.
  func classifyColumns(_ header: EntropyBody, _ space: EntropyWorkspace) {
    var ordinary: Float = 0
    for column in 0..<hidden {
      let spread = space.spreads[column]
      let raw = (4 * log2(max(spread / header.step, 0x1p-20))).rounded() + Float(EntropyBody.classOfOne)
      space.columns[column] = UInt8(min(max(raw, 0), Float(EntropyBody.lastClass)))
      space.weights[column] = 1 / max(spread, 0.3 * header.step)
      ordinary += (spread * space.weights[column]) * (spread * space.weights[column])
    }
    // The ordinary row is of class 0.
    if ordinary > 0 { kernels.scale(space.weights, (Float(hidden) / ordinary).squareRoot(), space.weights, hidden) }
  }

  /// The class of a row at a step: how its spread compares with that of its columns.
  func classify(row: Int, _ space: EntropyWorkspace) -> Int32 {
    let norm = space.norms[row]
    guard norm.isFinite else { return EntropyBody.notANumberRow }
    guard norm > 0 else { return EntropyBody.zeroRow }
    let sum = kernels.weighted_squares(space.residuals + row * hidden, space.weights, hidden) / Float(hidden)
    guard sum.isFinite, sum > 1e-30 else {
      // Far from all others: by its norm alone.
      var ratio = Double(norm) * Double(space.weights[0])
      for column in 1..<hidden { ratio = max(ratio, Double(norm) * Double(space.weights[column])) }
      return Int32(min(max((4 * log2(ratio)).rounded(), -1900), 1900))
    }
    return Int32((2 * log2(Double(sum))).rounded())
  }

  /// What each context adds to a magnitude before it is rounded down: half, less what rounding down saves in bits.
  ///
  /// Between 0 and 1 of a Gaussian of spread s steps the rate-distortion optimum (λ = 0.115 per bit) lies about
  /// 0.017 s^−2.1 above one half.
  func setRounding(_ header: EntropyBody, _ space: EntropyWorkspace) {
    for context in Int(EntropyBody.elements)..<header.contexts {
      let first = Int32(context - Int(EntropyBody.elements)) << Int32(header.shift)
      let middle = Float(first) + Float((1 << Int32(header.shift)) - 1) / 2
      let spread = exp2((middle - Float(EntropyBody.classOfOne)) / 4)
      let zone = header.shift == EntropyBody.coarsest ? 0.04 : min(0.017 * pow(spread, -2.1), 0.35)
      space.rounding[context] = 0.5 - zone
    }
  }
}
