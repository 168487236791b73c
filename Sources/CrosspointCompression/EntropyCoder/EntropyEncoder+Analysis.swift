import CCrosspointKernels
import CrosspointCore
import CrosspointTokens
import Glibc

/// What the encoder of entropy-coded rows finds out before it codes: means, norms of rows, spreads of columns.
extension EntropyEncoder {
  /// A residual's norm counts for at least this part of its row's: what is smaller is rounding of the mean.
  private static let leastResidual: Float = 0x1p-10
  /// The same where the mean was taken once more of the residuals.
  private static let leastOfRefined: Float = 0x1p-22
  /// A mean is refined where its largest element exceeds the residuals this often.
  private static let dominantMean: Float = 0x1p12
  /// Rows from which columns have spreads of their own.
  private static let worthColumns = 16
  /// Columns from which the spread of a row is known well enough to be worth the bits that say it.
  private static let worthRows = 16
  /// What squares of spreads are raised by, so that those of a column survive that is 2^−100 of another.
  private static let raised: Float = 0x1p48

  /// Copies the rows of a group; those that a memory is of as its coordinates.
  private func load(_ group: RowSource, from first: Int) {
    let copies = space.residuals + first * hidden
    for row in 0..<group.rows { memcpy(copies + row * hidden, codec.row(row, of: group), 4 * hidden) }
    guard let memory else { return }
    for row in 0..<group.rows { space.numbers[first + row] = memory.number(of: group.label(row)) }
    memory.enter(copies, space.numbers + first, group.rows, codec)
  }

  /// Copies all rows, and takes the means off groups for which that pays.
  func centreGroups(_ body: borrowing BodyWriter) throws(CrosspointError) {
    var first = 0
    for (index, group) in groups.enumerated() {
      let centred = try centre(group, group: index, from: first, body)
      FrameHeader.setGroup(index, rows: group.rows, centred: centred, in: frame)
      first += group.rows
    }
  }

  /// Copies the rows of a group without their mean, if that pays; says whether it does.
  ///
  /// n rows of which centring leaves the part ρ of the energy save ½ log₂(1/ρ) bits per element each; the mean costs
  /// about 6.
  private func centre(
    _ group: RowSource, group index: Int, from first: Int, _ body: borrowing BodyWriter
  ) throws(CrosspointError) -> Bool {
    let mean = space.means + index * hidden
    mean.update(repeating: 0, count: hidden)
    var energy = 0.0
    var finite = 0
    if memory != nil { load(group, from: first) }
    for row in 0..<group.rows {
      let (source, copy) = (try body.row(row, of: group), space.residuals + (first + row) * hidden)
      // Where no memory has copied it, it is while it is measured.
      let square =
        memory == nil
        ? codec.kernels.centre(copy, source, nil, hidden) : codec.kernels.dot(copy, copy, hidden)
      let norm = codec.rootMeanSquare(copy, energy: square)
      space.norms[first + row] = norm
      guard norm.isFinite else { continue }
      codec.kernels.axpy(mean, 1, copy, hidden)
      energy += Double(norm) * Double(norm)
      finite += 1
    }
    guard finite > 1 else { return false }
    codec.kernels.scale(mean, 1 / Float(finite), mean, hidden)
    let common = codec.rootMeanSquare(mean, energy: codec.kernels.dot(mean, mean, hidden))
    let remaining = 1 - Double(finite) * Double(common) * Double(common) / energy
    guard remaining.isFinite, common.isFinite, Double(finite) * -log2(max(remaining, 1e-12)) > 12 else { return false }
    let rows = first..<first + group.rows
    let shorter = rows.count { space.norms[$0] < common / 2 }
    guard MeanSample.isCommon(shorterRows: shorter, of: finite) else { return false }
    let left = subtract(mean, from: rows, leaving: Self.leastResidual)
    // A column of one large value: the rounding of its mean would be all that is left of the rows.
    if codec.kernels.largest_magnitude(mean, hidden) > Self.dominantMean * left {
      refine(mean, of: group, from: first, finite: finite)
    }
    return true
  }

  /// Takes a group's mean off its residuals, whose norms become theirs, but not less than a part of what they were; returns
  /// their largest norm without that limit.
  private func subtract(
    _ mean: UnsafePointer<Float>, from rows: Range<Int>, leaving least: Float
  ) -> Float {
    var most: Float = 0
    for row in rows where space.norms[row].isFinite {
      let residual = space.residuals + row * hidden
      codec.kernels.axpy(residual, -1, mean, hidden)
      let norm = codec.rootMeanSquare(residual, energy: codec.kernels.dot(residual, residual, hidden))
      most = max(most, norm)
      space.norms[row] = norm > 0 ? max(norm, least * space.norms[row]) : 0
    }
    return most
  }

  /// Adds to a group's mean that of its residuals.
  private func refine(
    _ mean: UnsafeMutablePointer<Float>, of group: RowSource, from first: Int, finite: Int
  ) {
    let correction = codec.scratchRow(0)
    correction.update(repeating: 0, count: hidden)
    for row in first..<first + group.rows where space.norms[row].isFinite {
      codec.kernels.axpy(correction, 1 / Float(finite), space.residuals + row * hidden, hidden)
    }
    codec.kernels.axpy(mean, 1, correction, hidden)
    load(group, from: first)
    for row in 0..<group.rows where space.norms[first + row].isFinite {
      let residual = space.residuals + (first + row) * hidden
      space.norms[first + row] = codec.rootMeanSquare(residual, energy: codec.kernels.dot(residual, residual, hidden))
    }
    _ = subtract(mean, from: first..<first + group.rows, leaving: Self.leastOfRefined)
  }

  /// The geometric mean of the norms of all ordinary rows, and how many there are. Where nothing is left but the groups'
  /// means, these count as the norms of rows whose residual is the least that counts.
  func typicalNorm() -> (norm: Float, rows: Int) {
    var sum = 0.0
    var count = 0
    func add(_ norm: Float) {
      guard norm.isFinite, norm > 0 else { return }
      sum += log2(Double(norm))
      count += 1
    }
    for row in 0..<rows { add(space.norms[row]) }
    let ordinary = count
    if ordinary == 0 {
      for group in groups.indices {
        let mean = space.means + group * hidden
        add(Self.leastResidual * codec.rootMeanSquare(mean, energy: codec.kernels.dot(mean, mean, hidden)))
      }
    }
    return (count == 0 ? 1 : Float(exp2(sum / Double(count))), ordinary)
  }

  /// Takes from a group's rows what the receiver will add: the mean as coded.
  func sharpen(group index: Int, rows: Range<Int>, _ form: EntropyBody) {
    let mean = space.means + index * hidden
    let lost = codec.scratchRow(0)
    for column in 0..<hidden { lost[column] = mean[column] - form.coded(mean: mean[column]) }
    let (norm, rest) = (
      codec.rootMeanSquare(mean, energy: codec.kernels.dot(mean, mean, hidden)),
      codec.rootMeanSquare(lost, energy: codec.kernels.dot(lost, lost, hidden))
    )
    for row in rows where space.norms[row].isFinite {
      codec.kernels.axpy(space.residuals + row * hidden, 1, lost, hidden)
      // The mean was all there was, but the step of means is too coarse for it.
      if space.norms[row] == 0, rest > Self.leastResidual * norm { space.norms[row] = rest }
    }
  }

  /// Scales each residual by what its row weighs, so that one step for all is finer for the rows that weigh more.
  func weighRows() {
    var heaviest: Float = 0
    for group in groups {
      guard let weights = group.importances else { continue }
      for row in 0..<group.rows where weights[row].isFinite { heaviest = max(heaviest, weights[row].magnitude) }
    }
    var first = 0
    for group in groups {
      for row in 0..<group.rows {
        let own = group.importances.map { EntropyBody.weightClass($0[row], heaviest: heaviest) } ?? 0
        space.weightClasses[first + row] = own
        guard own > 0 else { continue }
        let (residual, scale) = (space.residuals + (first + row) * hidden, EntropyBody.weight(ofClass: own))
        codec.kernels.scale(residual, scale, residual, hidden)
        space.norms[first + row] *= scale
      }
      first += group.rows
    }
  }

  /// The spread of each column, times the typical norm.
  func measureSpreads(ordinary: Int, typical: Float) {
    guard ordinary >= Self.worthColumns else { return space.spreads.update(repeating: typical, count: hidden) }
    space.spreads.update(repeating: 0, count: hidden)
    for row in 0..<rows where space.norms[row].isFinite && space.norms[row] > 0 {
      let (residual, norm) = comfortable(row)
      codec.kernels.axpy_squares(space.spreads, Self.raised / norm, residual, hidden)
    }
    for column in 0..<hidden {
      space.spreads[column] = (space.spreads[column] / Float(ordinary)).squareRoot() / Self.raised * typical
    }
  }

  /// A residual and its norm; tiny ones times 2^80, so that one over the norm is far from infinite.
  private func comfortable(_ row: Int) -> (row: UnsafePointer<Float>, norm: Float) {
    let (residual, norm) = (space.residuals + row * hidden, space.norms[row])
    guard norm < 0x1p-60 else { return (UnsafePointer(residual), norm) }
    codec.kernels.scale(codec.scratchRow(0), 0x1p80, residual, hidden)
    return (UnsafePointer(codec.scratchRow(0)), 0x1p80 * norm)
  }

  /// Classes of the columns at a step, and the weights that make every column count alike in a row's spread.
  func classifyColumns(_ header: EntropyBody) {
    var ordinary = 0.0
    for column in 0..<hidden {
      let spread = space.spreads[column]
      let raw = (4 * log2(max(spread / header.step, 0x1p-20))).rounded() + Float(EntropyBody.classOfOne)
      space.columns[column] = UInt8(min(max(raw, 0), Float(EntropyBody.lastClass)))
      space.weights[column] = 1 / max(spread, 0.3 * header.step, .leastNormalMagnitude)
      ordinary += Double(spread * space.weights[column]) * Double(spread * space.weights[column])
    }
    // The ordinary row is of class 0.
    guard ordinary > 0 else { return }
    let factor = (Double(hidden) / ordinary).squareRoot()
    for column in 0..<hidden {
      space.weights[column] = Float(min(factor * Double(space.weights[column]), 0x1p120))
    }
  }

  /// The class of a row at a step: how its spread compares with that of its columns.
  func classify(row: Int) -> Int32 {
    let norm = space.norms[row]
    guard norm.isFinite else { return EntropyBody.notANumberRow }
    guard norm > 0 else { return hidden < Self.worthRows && dither == nil ? 0 : EntropyBody.zeroRow }
    let sum = codec.kernels.weighted_squares(space.residuals + row * hidden, space.weights, hidden) / Float(hidden)
    guard sum.isFinite, sum > 1e-30 else {
      return worthSaying(4 * log2(farSpread(row)))
    }
    return worthSaying(2 * log2(Double(sum)))
  }

  /// The root of a row's weighted mean square where floats do not hold the square.
  private func farSpread(_ row: Int) -> Double {
    var sum = 0.0
    for column in 0..<hidden {
      let term = Double(space.residuals[row * hidden + column]) * Double(space.weights[column])
      sum += term * term
    }
    return max((sum / Double(hidden)).squareRoot(), 1e-130)
  }

  /// What a row of few columns says of its spread takes bits that its elements miss: it says only what is out of the common.
  private func worthSaying(_ quarterOctaves: Double) -> Int32 {
    let rounded = Int32(quarterOctaves.rounded())
    let common = hidden < Self.worthRows ? EntropyBody.ordinaryRow + 4 * Int32(Self.worthRows / hidden) : 0
    return abs(rounded) <= common ? 0 : rounded
  }

  /// What each context adds to a magnitude before it is rounded down: half, less what rounding down saves in bits.
  ///
  /// Between 0 and 1 of a Gaussian of spread s steps the rate-distortion optimum (λ = 0.115 per bit) lies about
  /// 0.017 s^−2.1 above one half.
  func setRounding(_ header: EntropyBody) {
    space.rounding[Int(EntropyBody.means)] = 0.5
    for context in Int(EntropyBody.elements)..<header.contexts {
      let first = Int32(context - Int(EntropyBody.elements)) << Int32(header.shift)
      let middle = Float(first) + Float((1 << Int32(header.shift)) - 1) / 2
      let spread = exp2((middle - Float(EntropyBody.classOfOne)) / 4)
      // With noise nothing is saved: what is rounded must come out right in the mean.
      let zone = dither != nil ? 0 : header.shift == EntropyBody.coarsest ? 0.04 : min(0.017 * pow(spread, -2.1), 0.35)
      space.rounding[context] = 0.5 - zone
    }
  }
}
