import CrosspointCore
import CrosspointTokens

/// Rows that stand for several others: what pooling and merging share. Memory is pooled and reused from batch to batch.
///
///     reduce   x̄_j = Σ_t a_t x_t over the members of row j
///     expand   y_t = o_s(t), the output of the row that token t reads; −0 if it reads none
package struct RowGroups {
  /// `[T]`: the row that token t is part of; −1 for padding.
  package private(set) var rowOf: [Int32] = []
  /// `[T]`: the row whose output token t reads; −1 for none.
  package private(set) var sourceOf: [Int32] = []
  /// `[T]`: a_t.
  package private(set) var shares: [Float] = []
  package private(set) var layout = RowLayout(sequences: 0, length: 0)
  /// `[R]`: Σ weights of the members.
  private var totals: [Int32] = []
  private let pool = BufferPool()

  package init() {}

  /// Starts over for rows of this layout.
  package mutating func begin(_ input: RowLayout) {
    rowOf.removeAll(keepingCapacity: true)
    sourceOf.removeAll(keepingCapacity: true)
    shares.removeAll(keepingCapacity: true)
    layout.begin(from: input)
  }

  /// A new row of a sequence, as yet without tokens.
  package mutating func addRow(sequence: Int) -> Int32 {
    layout.append(sequence: sequence, tokens: 0)
    return Int32(layout.rows - 1)
  }

  /// The next row of the input: one for `tokens` tokens, part of `row`, reading `source`.
  package mutating func addMember(of row: Int32, tokens: Int32, source: Int32) {
    rowOf.append(row)
    sourceOf.append(source)
    shares.append(0)
    if row >= 0 { layout.tokensPerRow[Int(row)] += tokens }
  }

  /// Every row is the mean of its members.
  /// - Parameter weights: `[T]`, how much each counts; `nil`: all the same.
  package mutating func finishMeans(weights: [Int32]? = nil) {
    totals.removeAll(keepingCapacity: true)
    totals.append(contentsOf: repeatElement(0, count: layout.rows))
    for (token, row) in rowOf.enumerated() where row >= 0 { totals[Int(row)] += weights?[token] ?? 1 }
    for (token, row) in rowOf.enumerated() where row >= 0 {
      shares[token] = Float(weights?[token] ?? 1) / Float(totals[Int(row)])
    }
  }

  /// The first member of a row alone gives its value.
  package mutating func finishFirsts() {
    var next: Int32 = 0
    for token in shares.indices where rowOf[token] >= 0 {
      let isFirst = rowOf[token] == next
      shares[token] = isFirst ? 1 : 0
      if isFirst { next += 1 }
    }
  }

  /// `[T × d]` → `[R × d]`.
  /// - Throws: `invalidArgument` if the batch has another number of rows than members were added; so do the other three.
  package func reduce(_ tokens: borrowing TokenBatch) throws(CrosspointError) -> TokenRows {
    try TokenRows(tokens: sum(tokens, by: rowOf, shares), layout: layout)
  }

  /// `[R × d]` → `[T × d]`: to each the output it reads, −0 where it reads none.
  package func expand(_ outputs: borrowing TokenBatch) throws(CrosspointError) -> TokenBatch {
    try spread(outputs, by: sourceOf, shares: nil)
  }

  /// The adjoint of ``expand(_:)``.
  package func expandBackward(_ dy: borrowing TokenBatch) throws(CrosspointError) -> TokenBatch {
    try sum(dy, by: sourceOf, nil)
  }

  /// The adjoint of ``reduce(_:)``.
  package func reduceBackward(_ dRows: borrowing TokenBatch) throws(CrosspointError) -> TokenBatch {
    try spread(dRows, by: rowOf, shares: shares)
  }

  /// `[T × d]` → `[R × d]`, in the order of the tokens.
  private func sum(
    _ batch: borrowing TokenBatch, by rows: [Int32], _ shares: [Float]?
  ) throws(CrosspointError) -> TokenBatch {
    try expect(batch, rows: rows.count)
    let width = batch.hidden
    let result = try TokenBatch(uninitializedRows: layout.rows, hidden: width, pool: pool)
    result.elements.update(repeating: 0)
    for (token, row) in rows.enumerated() where row >= 0 {
      let share = shares?[token] ?? 1
      if share != 0 { kernels.axpy(result.base + Int(row) * width, share, batch.base + token * width, width) }
    }
    return result
  }

  /// `[R × d]` → `[T × d]`.
  private func spread(
    _ batch: borrowing TokenBatch, by rows: [Int32], shares: [Float]?
  ) throws(CrosspointError) -> TokenBatch {
    try expect(batch, rows: layout.rows)
    let width = batch.hidden
    let result = try TokenBatch(uninitializedRows: rows.count, hidden: width, pool: pool)
    for (token, row) in rows.enumerated() {
      let to = result.base + token * width
      let share = shares?[token] ?? 1
      if row < 0 || share == 0 {
        to.update(repeating: -0.0, count: width)
      } else if share == 1 {
        to.update(from: batch.base + Int(row) * width, count: width)
      } else {
        kernels.scale(to, share, batch.base + Int(row) * width, width)
      }
    }
    return result
  }

  private func expect(_ batch: borrowing TokenBatch, rows: Int) throws(CrosspointError) {
    try batch.requireFloats(operation: "RowGroups", argument: "batch")
    guard batch.rows == rows else {
      throw CrosspointError(
        .invalidArgument, operation: "RowGroups", argument: "batch", "\(batch.rows) rows where \(rows) are expected")
    }
  }
}
