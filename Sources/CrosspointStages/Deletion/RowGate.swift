import CrosspointCore
import CrosspointTokens

/// The learned score of a row: `z = w · n + b` with `n = γ ⊙ x / sqrt(mean(x²) + 1e-6)`; a row is kept if z > 0.
///
/// ``DeletionGate`` weighs the experts' branch by it; a model that masks attention by it holds one of its own.
/// Parameters are `[γ (d) | w (d) | b]`. At the start γ = 1, w is Xavier-uniform and b = 1, which deletes about a quarter.
/// Source: MrT5 (arXiv 2410.20771), as in the authors' code.
package struct RowGate: Sendable {
  package let hidden: Int
  /// Learned numbers, the same on every rank.
  package var parameters: [Float]
  /// ∂L/∂``parameters``, accumulated.
  package var gradients: [Float]
  /// `[T]`: z of each row.
  package private(set) var logits: [Float] = []
  /// `[T]`: 1 / root mean square of each row; 0 for padding.
  private var inverseNorms: [Float] = []
  /// `[d]`: w ⊙ γ.
  private var slope: [Float]
  /// `[d]`: Σ dz x / rms.
  private var sum: [Float]

  /// - Throws: `invalidArgument` for a size out of 1 to 2²⁴, `outOfMemory`.
  package init(hidden: Int, seed: UInt64) throws(CrosspointError) {
    try Extent.require(hidden, in: Extent.hidden, operation: "RowGate", argument: "hidden")
    try requireMemory(bytes: 24 * hidden + 8, operation: "RowGate", argument: "hidden")
    self.hidden = hidden
    let bound = (6 / Float(hidden + 1)).squareRoot()
    var generator = SplitMix64(seed: seed ^ 0x6D72_7435_6761_7465)
    parameters = [Float](repeating: 1, count: 2 * hidden + 1)
    for index in hidden..<2 * hidden { parameters[index] = bound * (2 * generator.nextUnit() - 1) }
    gradients = [Float](repeating: 0, count: parameters.count)
    slope = [Float](repeating: 0, count: hidden)
    sum = slope
  }

  private var bias: Float { parameters[2 * hidden] }

  /// Fills `logits`.
  /// - Returns: the first row that is no padding and whose score is not finite.
  package mutating func score(_ tokens: borrowing TokenBatch, _ layout: RowLayout) -> Int? {
    let (rows, hidden, x) = (tokens.rows, hidden, tokens.base)
    for d in 0..<hidden { slope[d] = parameters[d] * parameters[hidden + d] }
    logits.removeAll(keepingCapacity: true)
    inverseNorms.removeAll(keepingCapacity: true)
    for row in 0..<rows {
      let values = x + row * hidden
      let inverse = 1 / (kernels.dot(values, values, hidden) / Float(hidden) + 1e-6).squareRoot()
      let logit = inverse * kernels.dot(slope, values, hidden) + bias
      guard logit.isFinite || layout.tokensPerRow[row] == 0 else { return row }
      inverseNorms.append(layout.tokensPerRow[row] > 0 ? inverse : 0)
      logits.append(logit)
    }
    return nil
  }

  /// σ(z) of a row.
  package func share(_ row: Int) -> Float { sigmoid(logits[row]) }

  /// Adds what `dz` means for the parameters and for the rows: with u = x / rms and v = w ⊙ γ,
  /// `dw += Σ dz γ ⊙ u`, `dγ += Σ dz w ⊙ u`, `db += Σ dz`, `dx += dz (v − u mean(v ⊙ u)) / rms`.
  /// - Parameter dLogit: ∂L/∂z of a row that is no padding.
  package mutating func differentiate(
    _ tokens: borrowing TokenBatch, into dTokens: borrowing TokenBatch, dLogit: (_ row: Int) -> Float
  ) {
    let (hidden, x, dx) = (hidden, tokens.base, dTokens.base)
    for d in 0..<hidden { sum[d] = 0 }
    var total: Float = 0
    for row in logits.indices {
      let inverse = inverseNorms[row]
      guard inverse > 0 else { continue }
      let dz = dLogit(row)
      let mean = (logits[row] - bias) / Float(hidden)
      total += dz
      kernels.axpy(&sum, dz * inverse, x + row * hidden, hidden)
      kernels.axpy(dx + row * hidden, dz * inverse, slope, hidden)
      kernels.axpy(dx + row * hidden, -dz * inverse * inverse * mean, x + row * hidden, hidden)
    }
    for d in 0..<hidden {
      gradients[d] += parameters[hidden + d] * sum[d]
      gradients[hidden + d] += parameters[d] * sum[d]
    }
    gradients[2 * hidden] += total
  }
}
