import Crosspoint

/// A narrow exchange: tokens go to their experts at a width below the model's, and what they made is widened at home,
/// `y = (Σ w E(x D)) U`. The router and shared experts see the whole token. Without a latent width it is the identity.
///
/// All experts of a layer share D and U, and every rank holds them (LatentMoE, arXiv 2601.18089).
final class LatentProjection {
  /// D, `[width × latent]`.
  private let down: Parameter?
  /// U, `[latent × width]`.
  private let up: Parameter?
  private let pool = BufferPool()
  /// What came home, kept for ∂L/∂U.
  private var home: TokenBatch?

  /// What every rank holds.
  static func parameters(_ name: String, _ shape: ModelShape) -> [ParameterSpecification] {
    guard let latent = shape.latent else { return [] }
    return [
      ParameterSpecification(name: name + ".narrow", rows: shape.width, columns: latent, start: .fanIn(shape.width)),
      ParameterSpecification(
        name: name + ".widen", rows: latent, columns: shape.width, start: .residual(latent, shape)),
    ]
  }

  init(_ name: String, _ shape: ModelShape, in set: ParameterSet) {
    down = shape.latent.map { _ in set[name + ".narrow"] }
    up = shape.latent.map { _ in set[name + ".widen"] }
  }

  /// `[rows × width]` → `[rows × latent]`.
  func narrow(_ x: borrowing TokenBatch) throws(CrosspointError) -> TokenBatch {
    guard let down else { return TokenBatch(viewing: x) }
    return try product(x, down.value)
  }

  /// `[rows × latent]` → `[rows × width]`.
  func widen(_ outputs: consuming TokenBatch) throws(CrosspointError) -> TokenBatch {
    guard let up else { return outputs }
    let wide = try product(outputs, up.value)
    home = consume outputs
    return wide
  }

  /// The adjoint of ``widen(_:)``; adds to ∂L/∂U.
  func widenBackward(_ dy: borrowing TokenBatch) throws(CrosspointError) -> TokenBatch {
    guard let up, let outputs = home.take() else { return TokenBatch(viewing: dy) }
    multiply(Matrix(outputs).transposed, Matrix(dy), into: up.gradient, accumulate: true)
    return try product(dy, up.value.transposed)
  }

  /// The adjoint of ``narrow(_:)``; adds to ∂L/∂D.
  func narrowBackward(
    _ dRows: consuming TokenBatch, _ x: borrowing TokenBatch
  ) throws(CrosspointError) -> TokenBatch {
    guard let down else { return dRows }
    multiply(Matrix(x).transposed, Matrix(dRows), into: down.gradient, accumulate: true)
    return try product(dRows, down.value.transposed)
  }

  /// Gives back what forward kept.
  func forget() { home = nil }

  private func product(_ rows: borrowing TokenBatch, _ matrix: Matrix) throws(CrosspointError) -> TokenBatch {
    let product = try TokenBatch(uninitializedRows: rows.rows, hidden: matrix.columns, pool: pool)
    multiply(Matrix(rows), matrix, into: Matrix(product))
    return product
  }
}
