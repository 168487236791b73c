import CrosspointCore
import CrosspointTokens

/// The rows of a batch that a stage keeps, in order: gathering them and, as its adjoint, putting them back.
///
/// Padding is never kept. Memory is pooled and reused from batch to batch.
public struct RowSelection {
  package private(set) var rows = 0
  /// Their numbers, rising.
  package private(set) var kept: [Int32] = []
  private var layout = RowLayout(sequences: 0, length: 0)
  private let pool = BufferPool()

  public init() {}

  /// Chooses anew: `keep` is asked once for each row that is no padding, in order, with its place within its sequence.
  public mutating func choose(
    of layout: RowLayout, keep: (_ row: Int, _ sequence: Int, _ place: Int) -> Bool
  ) {
    rows = layout.rows
    kept.removeAll(keepingCapacity: true)
    self.layout.begin(from: layout)
    var row = 0
    for (sequence, count) in layout.rowsPerSequence.enumerated() {
      for place in 0..<count {
        if layout.tokensPerRow[row] > 0, keep(row, sequence, place) {
          kept.append(Int32(row))
          self.layout.append(sequence: sequence, tokens: layout.tokensPerRow[row])
        }
        row += 1
      }
    }
  }

  /// The chosen rows of `batch` and what they stand for.
  /// - Throws: `invalidArgument` if the batch has another number of rows than was chosen from.
  public func select(_ batch: borrowing TokenBatch) throws(CrosspointError) -> TokenRows {
    try TokenRows(tokens: gather(batch), layout: layout)
  }

  /// `[T × d]` → `[R × d]`: the chosen rows.
  /// - Parameter weights: `[R]`, what each is multiplied by; empty for nothing.
  /// - Throws: `invalidArgument` if the batch has another number of rows than was chosen from.
  public func gather(_ batch: borrowing TokenBatch, weights: [Float] = []) throws(CrosspointError) -> TokenBatch {
    try expect(batch, rows: rows, operation: "gather")
    let result = try TokenBatch(uninitializedRows: kept.count, hidden: batch.hidden, pool: pool)
    for (place, row) in kept.enumerated() {
      let from = batch.base + Int(row) * batch.hidden
      move(from, to: result.base + place * batch.hidden, count: batch.hidden, weights, place)
    }
    return result
  }

  /// `[R × d]` → `[T × d]`: each row in its old place, −0 in all others.
  /// - Parameter weights: `[R]`, what each is multiplied by; empty for nothing.
  /// - Throws: `invalidArgument` if the batch has another number of rows than were chosen.
  public func scatter(_ batch: borrowing TokenBatch, weights: [Float] = []) throws(CrosspointError) -> TokenBatch {
    try expect(batch, rows: kept.count, operation: "scatter")
    let result = try TokenBatch(uninitializedRows: rows, hidden: batch.hidden, pool: pool)
    var next = 0
    for (place, row) in kept.enumerated() {
      (result.base + next * batch.hidden).update(repeating: -0.0, count: (Int(row) - next) * batch.hidden)
      let to = result.base + Int(row) * batch.hidden
      move(batch.base + place * batch.hidden, to: to, count: batch.hidden, weights, place)
      next = Int(row) + 1
    }
    (result.base + next * batch.hidden).update(repeating: -0.0, count: (rows - next) * batch.hidden)
    return result
  }

  private func move(
    _ from: UnsafePointer<Float>, to: UnsafeMutablePointer<Float>, count: Int, _ weights: [Float], _ place: Int
  ) {
    if weights.isEmpty { to.update(from: from, count: count) } else { kernels.scale(to, weights[place], from, count) }
  }

  private func expect(_ batch: borrowing TokenBatch, rows: Int, operation: String) throws(CrosspointError) {
    try batch.requireFloats(operation: operation, argument: "batch")
    guard batch.rows == rows else {
      throw CrosspointError(
        .invalidArgument, operation: operation, argument: "batch", "\(batch.rows) rows where \(rows) are expected")
    }
  }
}
