import CCrosspointKernels
import CrosspointCore

/// Second moments of rows, and their leading axes.
struct Scatter: ~Copyable {
  private let hidden: Int
  /// `[hidden × hidden]`: Σ r rᵀ; empty where rows are too large for it.
  private var moments: [Float]

  /// - Throws: `outOfMemory` where there is not what it takes now and what its methods will take beside.
  init(hidden: Int, most: Int) throws(CrosspointError) {
    self.hidden = hidden
    let count = hidden <= most ? hidden * hidden : 0
    try requireMemory(bytes: 16 * count, operation: "RowMemory", argument: "axes")
    moments = Array(repeating: 0, count: count)
  }

  mutating func add(_ row: [Float], _ kernels: xp_kernels) {
    guard !moments.isEmpty else { return }
    moments.withUnsafeMutableBufferPointer { moments in
      for column in 0..<hidden { kernels.axpy(moments.baseAddress! + column * hidden, row[column], row, hidden) }
    }
  }

  /// Makes it that of the rows of all ranks. Collective if the sums are.
  mutating func sum(over ranks: RankSums) throws(CrosspointError) {
    // One half says all.
    var half = (0..<(moments.isEmpty ? 0 : hidden)).flatMap { row in moments[row * hidden + row..<(row + 1) * hidden] }
    try half.withUnsafeMutableBufferPointer { half throws(CrosspointError) in try ranks.values(half) }
    var next = 0
    for row in 0..<(moments.isEmpty ? 0 : hidden) {
      for column in row..<hidden {
        (moments[row * hidden + column], moments[column * hidden + row]) = (half[next], half[next])
        next += 1
      }
    }
  }

  /// `[hidden]`: the energy of each coordinate behind a map.
  func energies(behind map: Reflections?, _ kernels: xp_kernels) -> [Float] {
    guard !moments.isEmpty else { return Array(repeating: 1, count: hidden) }
    var mapped = moments
    for _ in 0..<2 {
      mapped.withUnsafeMutableBufferPointer { map?.apply($0.baseAddress!, hidden, kernels) }
      mapped = (0..<mapped.count).map { mapped[$0 % hidden * hidden + $0 / hidden] }
    }
    return (0..<hidden).map { max(0, mapped[$0 * hidden + $0]) }
  }

  /// `[count × hidden]`: the axes of most energy in falling order, by orthogonal iteration (Golub and Van Loan, "Matrix
  /// computations", 7.3): axes times moments, made orthogonal, again and again. What has no energy left has no axis.
  ///
  /// - Parameter start: axes to begin with, `[any × hidden]`; the others begin at random.
  func leadingAxes(_ count: Int, from start: [Float], iterations: Int, _ kernels: xp_kernels) -> [Float] {
    guard !moments.isEmpty, count > 0 else { return [] }
    var generator = SplitMix64(seed: 0)
    var axes = (0..<count * hidden).map { index in
      let random = generator.nextUnit() - 0.5
      return index < start.count ? start[index] : random
    }
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
