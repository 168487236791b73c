/// Gradient checks by central differences.

/// `∂f/∂x_i ≈ (f(x + h e_i) − f(x − h e_i)) / 2h` for every element of `x`, with the step as floats really take it.
public func centralDifferences(
  at x: [Float], step: Float = 1e-2, of f: ([Float]) throws -> Double
) rethrows -> [Double] {
  var x = x
  return try x.withUnsafeMutableBufferPointer { x in
    try x.indices.map { i in
      try centralDifference(of: x.baseAddress! + i, step: step) { try f(Array(x)) }
    }
  }
}

/// The derivative of `loss` by one parameter, which is changed in place and restored.
///
/// When `loss` is collective every rank calls this together with the same value there; those that do not own the
/// parameter pass a copy of it.
public func centralDifference(
  of parameter: UnsafeMutablePointer<Float>, step: Float = 1e-2, loss: () throws -> Double
) rethrows -> Double {
  let value = parameter.pointee
  defer { parameter.pointee = value }
  let (above, below) = (value + step, value - step)
  parameter.pointee = above
  let lossAbove = try loss()
  parameter.pointee = below
  let lossBelow = try loss()
  return (lossAbove - lossBelow) / (Double(above) - Double(below))
}
