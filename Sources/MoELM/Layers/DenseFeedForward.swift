import CrosspointCore

/// A feed-forward that every row of a batch passes, with what its backward pass needs of them: that of a dense block, or the
/// shared experts of a block with experts.
final class DenseFeedForward {
  private let weights: FeedForward
  private let hidden = FloatBuffer()
  private let active = FloatBuffer()

  init(_ name: String, in set: ParameterSet) {
    weights = FeedForward(name, in: set)
  }

  /// Adds the outputs of some rows to `y`; of all batches only the last has a backward pass.
  func forward(_ x: Matrix, rows: Range<Int>, addingTo y: Matrix) throws(CrosspointError) {
    let (hidden, active) = try (hidden.matrix(x.rows, weights.hidden), active.matrix(x.rows, weights.hidden))
    weights.forward(
      x[rows: rows], hidden: hidden[rows: rows], active: active[rows: rows], into: y[rows: rows], accumulate: true)
  }

  /// Fills some rows of `dx`, and adds to the gradients of the weights.
  func backward(_ x: Matrix, rows: Range<Int>, dy: Matrix, into dx: Matrix) throws(CrosspointError) {
    let (hidden, active) = try (hidden.matrix(x.rows, weights.hidden), active.matrix(x.rows, weights.hidden))
    weights.backward(
      x[rows: rows], hidden: hidden[rows: rows], active: active[rows: rows], dy: dy[rows: rows], into: dx[rows: rows])
  }
}

/// The rows of a batch in slices, for work that is done while an exchange is under way. Their size is fixed, so that sums
/// over rows, which the weights' gradients are, are added in the same order whatever comes when.
struct RowSlices {
  /// Each slice reads the weights anew: with fewer rows their products are slower. This many take half a millisecond for a
  /// width of 128.
  static let rowsPerSlice = 128

  private var rest: Range<Int>

  init(rows: Int) { rest = 0..<rows }

  /// Does the next slice, if there is one, and says whether any is left.
  mutating func next(_ body: (Range<Int>) throws(CrosspointError) -> Void) throws(CrosspointError) -> Bool {
    let slice = rest.prefix(Self.rowsPerSlice)
    if !slice.isEmpty { try body(slice) }
    rest = rest.dropFirst(slice.count)
    return !rest.isEmpty
  }
}
