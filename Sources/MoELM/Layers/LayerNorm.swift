import CrosspointCore

/// `y = gain (x − mean) / √(variance + ε) + bias`, row by row (Ba, Kiros and Hinton, arXiv 1607.06450).
final class LayerNorm {
  private let gain: Parameter
  private let bias: Parameter
  private let width: Int
  /// Rows of mean 0 and variance 1, and what they were divided by, kept for the backward pass.
  private let normalised = FloatBuffer()
  private let inverseDeviations = FloatBuffer()
  private static let epsilon: Float = 1e-5

  static func parameters(_ name: String, width: Int) -> [ParameterSpecification] {
    [
      ParameterSpecification(name: name + ".gain", rows: 1, columns: width, start: .ones),
      ParameterSpecification(name: name + ".bias", rows: 1, columns: width, start: .zeros),
    ]
  }

  init(_ name: String, width: Int, in set: ParameterSet) {
    gain = set[name + ".gain"]
    bias = set[name + ".bias"]
    self.width = width
  }

  func forward(_ x: Matrix, into y: Matrix) throws(CrosspointError) {
    let kept = try normalised.matrix(x.rows, width)
    let inverse = try inverseDeviations.matrix(x.rows, 1).base
    let (gain, bias) = (gain.value.base, bias.value.base)
    for row in 0..<x.rows {
      let (input, output, unit) = (x.row(row), y.row(row), kept.row(row))
      let mean = sum(input, input, count: width) { x, _ in x } / Float(width)
      map(input, into: unit, count: width) { $0 - mean }
      let variance = sum(unit, unit, count: width) { $0 * $1 } / Float(width)
      let scale = 1 / (variance + Self.epsilon).squareRoot()
      inverse[row] = scale
      map(unit, into: unit, count: width) { $0 * scale }
      map(unit, gain, into: output, count: width) { $0 * $1 }
      map(output, bias, into: output, count: width) { $0 + $1 }
    }
  }

  /// Adds `∂L/∂x` to `dx`.
  func backward(_ dy: Matrix, addingTo dx: Matrix) throws(CrosspointError) {
    let kept = try normalised.matrix(dy.rows, width)
    let inverse = try inverseDeviations.matrix(dy.rows, 1).base
    let (dGain, dBias, gain) = (self.gain.gradient.base, bias.gradient.base, self.gain.value.base)
    for row in 0..<dy.rows {
      let (slope, unit, out) = (dy.row(row), kept.row(row), dx.row(row))
      update(dGain, slope, unit, count: width) { $0 + $1 * $2 }
      map(dBias, slope, into: dBias, count: width) { $0 + $1 }
      map(slope, gain, into: slope, count: width) { $0 * $1 }
      let mean = sum(slope, slope, count: width) { dy, _ in dy } / Float(width)
      let along = sum(slope, unit, count: width) { $0 * $1 } / Float(width)
      let scale = inverse[row]
      update(out, slope, unit, count: width) { $0 + scale * ($1 - mean - along * $2) }
    }
  }
}
