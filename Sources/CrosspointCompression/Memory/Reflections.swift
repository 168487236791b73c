import CCrosspointKernels

/// An orthogonal map of rows whose leading axes are given; the others complete it, near the axes that rows have anyway.
///
/// It is the Q of a QR factorisation, kept as the product of Householder reflections that made it, in the compact form
/// Q = 1 − V T Vᵀ (Schreiber and Van Loan, "A storage-efficient WY representation", 1989). So k axes cost 2 k products per
/// element either way, whatever the hidden size, and rounding cannot make it anything but orthogonal.
struct Reflections: Sendable {
  /// How many axes were given, at most.
  static let most = 512

  let count: Int
  private let hidden: Int
  /// `[count × hidden]`, each: V; V T; V Tᵀ.
  private var vectors: [Float]
  private var forward: [Float]
  private var backward: [Float]

  /// - Parameter axes: `[count × hidden]`, in falling importance; need not be orthogonal.
  init(axes: [Float], hidden: Int) {
    count = axes.count / hidden
    self.hidden = hidden
    precondition(count <= min(hidden, Self.most))
    var factors = Factors(axes: axes.map { Double($0) }, count: count, hidden: hidden)
    factors.reduce()
    vectors = factors.vectors.map { Float($0) }
    forward = factors.times { row, column in row <= column ? factors.triangle[row * factors.count + column] : 0 }
    backward = factors.times { row, column in column <= row ? factors.triangle[column * factors.count + row] : 0 }
  }

  /// Coordinates of rows, in place.
  func apply(_ rows: UnsafeMutablePointer<Float>, _ rowCount: Int, _ kernels: xp_kernels) {
    kernels.reflect(rows, rowCount, forward, vectors, count, hidden)
  }

  /// Rows of coordinates, in place.
  func undo(_ rows: UnsafeMutablePointer<Float>, _ rowCount: Int, _ kernels: xp_kernels) {
    kernels.reflect(rows, rowCount, backward, vectors, count, hidden)
  }
}

/// The factorisation under way, in double precision.
private struct Factors {
  /// `[count × hidden]`: the axes, later what each reflection turns about.
  var vectors: [Double]
  /// `[count × count]`: T, upper triangular.
  var triangle: [Double]
  let count: Int
  let hidden: Int

  init(axes: [Double], count: Int, hidden: Int) {
    (vectors, self.count, self.hidden) = (axes, count, hidden)
    triangle = Array(repeating: 0, count: count * count)
  }

  mutating func reduce() {
    for index in 0..<count {
      let factor = makeReflection(index)
      for later in index + 1..<max(index + 1, count) { reflect(later, about: index, factor) }
      // T's column: −factor · T · Vᵀ v above the diagonal.
      triangle[index * count + index] = factor
      let products = (0..<index).map { product($0, index, from: index) }
      for row in 0..<index {
        let sum = (row..<index).reduce(0) { $0 + triangle[row * count + $1] * products[$1] }
        triangle[row * count + index] = -factor * sum
      }
    }
  }

  /// Turns an axis into the vector whose reflection moves it onto coordinate `index`; returns 2 / |v|².
  private mutating func makeReflection(_ index: Int) -> Double {
    let start = index * hidden
    for column in 0..<index { vectors[start + column] = 0 }
    let length = (index..<hidden).reduce(0) { $0 + vectors[start + $1] * vectors[start + $1] }.squareRoot()
    guard length > 0, length.isFinite else {
      for column in 0..<hidden { vectors[start + column] = 0 }
      return 0
    }
    vectors[start + index] += vectors[start + index] < 0 ? -length : length
    return 2 / product(index, index, from: index)
  }

  private mutating func reflect(_ row: Int, about index: Int, _ factor: Double) {
    let scale = factor * product(row, index, from: index)
    for column in index..<hidden { vectors[row * hidden + column] -= scale * vectors[index * hidden + column] }
  }

  /// Of two vectors, of which the later begins at its own index.
  private func product(_ a: Int, _ b: Int, from start: Int) -> Double {
    (start..<hidden).reduce(0) { $0 + vectors[a * hidden + $1] * vectors[b * hidden + $1] }
  }

  /// `[count × hidden]`: row j is Σ_i entry(i, j) v_i.
  func times(_ entry: (Int, Int) -> Double) -> [Float] {
    var result = [Float](repeating: 0, count: count * hidden)
    var row = [Double](repeating: 0, count: hidden)
    for column in 0..<count {
      for index in 0..<hidden { row[index] = 0 }
      for term in 0..<count {
        let factor = entry(term, column)
        guard factor != 0 else { continue }
        for index in 0..<hidden { row[index] += factor * vectors[term * hidden + index] }
      }
      for index in 0..<hidden { result[column * hidden + index] = Float(row[index]) }
    }
    return result
  }
}
