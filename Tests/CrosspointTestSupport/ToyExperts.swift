import CrosspointCore
import CrosspointTokens

/// Experts small enough to check by hand and with a Jacobian that is not the identity:
/// `E_e(x)_d = α_e x_d + β_e x_{d+1 mod hidden} + x_d² / 4`, α and β by expert index.
public struct ToyExperts: Sendable {
  public init() {}

  public func alpha(_ expert: Int) -> Float { 0.5 + 0.25 * Float(expert % 5) }
  public func beta(_ expert: Int) -> Float { 0.125 * Float(expert % 3) - 0.125 }

  /// One row, in any floating-point type.
  public func forward<T: BinaryFloatingPoint>(_ x: [T], expert: Int) -> [T] {
    x.indices.map { d in
      T(alpha(expert)) * x[d] + T(beta(expert)) * x[(d + 1) % x.count] + x[d] * x[d] / 4
    }
  }

  /// The adjoint at `x`, applied to `gradient`.
  public func backward(_ x: [Float], _ gradient: [Float], expert: Int) -> [Float] {
    x.indices.map { d in
      let previous = (d + x.count - 1) % x.count
      return (alpha(expert) + x[d] / 2) * gradient[d] + beta(expert) * gradient[previous]
    }
  }

  /// Rows grouped by local expert, `firstExpert` being the first of them.
  public func forward(
    _ rows: borrowing TokenBatch, rowsPerExpert: [Int], firstExpert: Int
  ) throws(CrosspointError) -> TokenBatch {
    let output = try TokenBatch(rows: rows.rows, hidden: rows.hidden)
    var row = 0
    for (local, count) in rowsPerExpert.enumerated() {
      for _ in 0..<count {
        _ = output.row(row).update(fromContentsOf: forward(Array(rows.row(row)), expert: firstExpert + local))
        row += 1
      }
    }
    return output
  }

  /// The adjoint of ``forward(_:rowsPerExpert:firstExpert:)``.
  public func backward(
    _ rows: borrowing TokenBatch, _ gradient: borrowing TokenBatch, rowsPerExpert: [Int], firstExpert: Int
  ) throws(CrosspointError) -> TokenBatch {
    let output = try TokenBatch(rows: rows.rows, hidden: rows.hidden)
    var row = 0
    for (local, count) in rowsPerExpert.enumerated() {
      for _ in 0..<count {
        let adjoint = backward(Array(rows.row(row)), Array(gradient.row(row)), expert: firstExpert + local)
        _ = output.row(row).update(fromContentsOf: adjoint)
        row += 1
      }
    }
    return output
  }
}
