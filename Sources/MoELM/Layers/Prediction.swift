import CrosspointCore
import Foundation

/// The byte wanted: logits `x W`, softmax and cross-entropy.
final class Prediction {
  private let weight: Parameter
  private let logits = FloatBuffer()

  static func parameters(_ name: String, _ shape: ModelShape) -> [ParameterSpecification] {
    [
      ParameterSpecification(
        name: name, rows: shape.width, columns: ModelShape.vocabulary, start: .normal(0.02))
    ]
  }

  init(_ name: String, in set: ParameterSet) { weight = set[name] }

  /// Keeps the probabilities for the backward pass.
  /// - Returns: Σ −ln p(target) over the rows that count, in nats.
  func forward(_ x: Matrix, _ batch: Batch) throws(CrosspointError) -> Double {
    let logits = try logits.matrix(x.rows, ModelShape.vocabulary)
    multiply(x, weight.value, into: logits)
    var loss = 0.0
    for place in 0..<x.rows where batch.counts(place) {
      let row = logits.row(place)
      let largest = maximum(row, count: ModelShape.vocabulary)
      let surprise = largest - row[Int(batch.targets[place])]
      map(row, into: row, count: ModelShape.vocabulary) { exponential($0 - largest) }
      let total = sum(row, row, count: ModelShape.vocabulary) { x, _ in x }
      loss += Double(surprise) + log(Double(total))
      map(row, into: row, count: ModelShape.vocabulary) { $0 * (1 / total) }
    }
    return loss
  }

  /// Backward of `scale` times the loss.
  func backward(_ x: Matrix, _ batch: Batch, scale: Float, into dx: Matrix) throws(CrosspointError) {
    let logits = try logits.matrix(x.rows, ModelShape.vocabulary)
    for row in 0..<x.rows {
      if batch.counts(row) {
        logits.row(row)[Int(batch.targets[row])] -= 1
      } else {
        logits.row(row).update(repeating: 0, count: ModelShape.vocabulary)
      }
    }
    map(logits.base, into: logits.base, count: logits.count) { $0 * scale }
    multiply(x.transposed, logits, into: weight.gradient, accumulate: true)
    multiply(logits, weight.value.transposed, into: dx)
  }
}
