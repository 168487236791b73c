import COpenBLAS

/// A view of row-major floats that somebody else owns, or of their transpose.
struct Matrix {
  let base: UnsafeMutablePointer<Float>
  /// Shape as seen: after transposing.
  let rows: Int
  let columns: Int
  /// Floats from one stored row to the next.
  let stride: Int
  let isTransposed: Bool

  init(_ base: UnsafeMutablePointer<Float>, _ rows: Int, _ columns: Int, stride: Int? = nil, isTransposed: Bool = false)
  {
    self.base = base
    self.rows = rows
    self.columns = columns
    self.stride = stride ?? columns
    self.isTransposed = isTransposed
  }

  var transposed: Matrix { Matrix(base, columns, rows, stride: stride, isTransposed: !isTransposed) }

  /// Rows of a matrix that is not transposed.
  subscript(rows range: Range<Int>) -> Matrix {
    Matrix(base + range.lowerBound * stride, range.count, columns, stride: stride)
  }

  /// A rectangle of a matrix that is not transposed.
  subscript(rows: Range<Int>, columns: Range<Int>) -> Matrix {
    Matrix(base + rows.lowerBound * stride + columns.lowerBound, rows.count, columns.count, stride: stride)
  }

  func row(_ index: Int) -> UnsafeMutablePointer<Float> { base + index * stride }

  /// Number of floats, where they are contiguous.
  var count: Int { rows * columns }
}

/// `c = scale · a b`, added to c if `accumulate`. One thread: ranks share the processor already.
func multiply(_ a: Matrix, _ b: Matrix, into c: Matrix, scale: Float = 1, accumulate: Bool = false) {
  precondition(
    a.rows == c.rows && b.columns == c.columns && a.columns == b.rows && !c.isTransposed, "shapes of a product")
  guard c.rows > 0, c.columns > 0 else { return }
  singleThreaded
  func blas(_ value: Int) -> Int32 { Int32(exactly: value)! }
  xp_sgemm(
    a.isTransposed, b.isTransposed, blas(c.rows), blas(c.columns), blas(a.columns), scale, a.base, blas(a.stride),
    b.base, blas(b.stride), accumulate ? 1 : 0, c.base, blas(c.stride))
}

/// Done once per process, before the first product.
private let singleThreaded: Void = xp_blas_threads(1)
