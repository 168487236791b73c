import CCrosspointKernels

/// Sums of squares of whatever finite floats there are: most by the kernels, in floats; those that would leave the range of
/// a float, or lose digits below it, in double precision.
extension xp_kernels {
  /// Sums of squares that a float holds to its full precision.
  private static let exact: ClosedRange<Float> = 1e-20...1e38

  /// Σx²; NaN or infinite where an element is.
  package func squares(_ x: UnsafePointer<Float>, _ count: Int) -> Double {
    let sum = dot(x, x, count)
    if Self.exact.contains(sum) { return Double(sum) }
    return (0..<count).reduce(0) { $0 + Double(x[$1]) * Double(x[$1]) }
  }

  /// Σ(x − y)²; NaN or infinite where an element is.
  package func squares(_ x: UnsafePointer<Float>, minus y: UnsafePointer<Float>, _ count: Int) -> Double {
    let sum = squared_distance(x, y, count)
    if Self.exact.contains(sum) { return Double(sum) }
    return (0..<count).reduce(0) {
      let difference = Double(x[$1]) - Double(y[$1])
      return $0 + difference * difference
    }
  }
}
