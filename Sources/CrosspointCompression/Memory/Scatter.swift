import CCrosspointKernels
import CrosspointCore

/// Second moments of rows, and their leading axes.
struct Scatter: ~Copyable {
  private let hidden: Int
  /// `[hidden × hidden]`: Σ r rᵀ; empty where rows are too large for it.
  private var moments: [Float]

  /// - Throws: `outOfMemory`.
  init(hidden: Int, most: Int) throws(CrosspointError) {
    self.hidden = hidden
    let count = hidden <= most ? hidden * hidden : 0
    try requireMemory(bytes: 4 * count, operation: "RowMemory", argument: "axes")
    moments = Array(repeating: 0, count: count)
  }

  mutating func add(_ row: [Float], _ kernels: xp_kernels) {
    guard !moments.isEmpty else { return }
    moments.withUnsafeMutableBufferPointer { moments in
      for column in 0..<hidden { kernels.axpy(moments.baseAddress! + column * hidden, row[column], row, hidden) }
    }
  }

  /// `[count × hidden]`: the axes of most energy in falling order, by orthogonal iteration (Golub and Van Loan, "Matrix
  /// computations", 7.3): axes times moments, made orthogonal, again and again. What has no energy left has no axis.
  func leadingAxes(_ count: Int, iterations: Int, _ kernels: xp_kernels) -> [Float] {
    guard !moments.isEmpty, count > 0 else { return [] }
    var generator = SplitMix64(seed: 0)
    var axes = (0..<count * hidden).map { _ in generator.nextUnit() - 0.5 }
    for _ in 0..<iterations {
      var next = [Float](repeating: 0, count: count * hidden)
      next.withUnsafeMutableBufferPointer { next in
        moments.withUnsafeBufferPointer { moments in
          for (index, factor) in axes.enumerated() {
            let (axis, column) = (index / hidden, index % hidden)
            kernels.axpy(next.baseAddress! + axis * hidden, factor, moments.baseAddress! + column * hidden, hidden)
          }
        }
        orthogonalise(next.baseAddress!, count, kernels)
      }
      axes = next
    }
    return axes
  }

  /// Gram and Schmidt, twice: that is enough (Giraud, Langou and Rozložník 2005).
  private func orthogonalise(_ axes: UnsafeMutablePointer<Float>, _ count: Int, _ kernels: xp_kernels) {
    for index in 0..<count {
      let axis = axes + index * hidden
      normalise(axis, kernels)
      for _ in 0..<2 {
        for earlier in 0..<index {
          let other = axes + earlier * hidden
          kernels.axpy(axis, -kernels.dot(axis, other, hidden), other, hidden)
        }
      }
      normalise(axis, kernels)
    }
  }

  private func normalise(_ axis: UnsafeMutablePointer<Float>, _ kernels: xp_kernels) {
    let most = kernels.largest_magnitude(axis, hidden)
    guard most > 0, most.isFinite else { return axis.update(repeating: 0, count: hidden) }
    kernels.scale(axis, 1 / most, axis, hidden)
    kernels.scale(axis, 1 / kernels.dot(axis, axis, hidden).squareRoot(), axis, hidden)
  }
}
