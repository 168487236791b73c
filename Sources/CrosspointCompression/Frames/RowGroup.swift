import CrosspointTokens

/// Rows to encode: one behind the other from the first, or gathered: row i is the one so many behind the first as its index says.
///
/// Row i is as important as the magnitude of `importances[i]`; none: all are alike. Only
/// formats that weigh rows ask. Its label, where rows have some, is at the same place as the row itself. Borrows its memory, which must outlive the call it is handed to. Indices are trusted.
package struct RowSource {
  package let first: RowPointer
  package let indices: UnsafePointer<Int32>?
  package let rows: Int
  package let importances: UnsafePointer<Float>?
  package let labels: UnsafePointer<Int32>?

  package init(
    first: RowPointer, indices: UnsafePointer<Int32>? = nil, rows: Int,
    importances: UnsafePointer<Float>? = nil, labels: UnsafePointer<Int32>? = nil
  ) {
    precondition(rows >= 0)
    self.first = first
    self.indices = indices
    self.rows = rows
    self.importances = importances
    self.labels = labels
  }

  /// Rows of floats.
  package init(
    base: UnsafePointer<Float>, indices: UnsafePointer<Int32>? = nil, rows: Int,
    importances: UnsafePointer<Float>? = nil, labels: UnsafePointer<Int32>? = nil
  ) {
    self.init(first: RowPointer(base), indices: indices, rows: rows, importances: importances, labels: labels)
  }

  @inline(__always)
  package func row(_ index: Int, hidden: Int) -> RowPointer { first.row(place(index), hidden: hidden) }

  /// −1 where rows have none.
  @inline(__always)
  package func label(_ index: Int) -> Int32 { labels.map { $0[place(index)] } ?? -1 }

  @inline(__always)
  private func place(_ index: Int) -> Int { indices.map { Int($0[index]) } ?? index }
}

/// Where decoded rows go: one behind the other from the first. Borrows its memory.
///
/// Where labels of rows are known before they come, `labels` has them; where they come with the rows, they are written to
/// `labelsFound`, −1 for those without an anchor. Where frames say what rows weigh, it is written to `weightsFound`.
package struct RowTarget {
  package let first: RowPointer
  package let rows: Int
  package let labels: UnsafePointer<Int32>?
  package let labelsFound: UnsafeMutablePointer<Int32>?
  package let weightsFound: UnsafeMutablePointer<Float>?

  package init(
    first: RowPointer, rows: Int, labels: UnsafePointer<Int32>? = nil,
    labelsFound: UnsafeMutablePointer<Int32>? = nil, weightsFound: UnsafeMutablePointer<Float>? = nil
  ) {
    precondition(rows >= 0)
    (self.first, self.rows, self.labels) = (first, rows, labels)
    (self.labelsFound, self.weightsFound) = (labelsFound, weightsFound)
  }

  /// Rows of floats.
  package init(
    base: UnsafeMutablePointer<Float>, rows: Int, labels: UnsafePointer<Int32>? = nil,
    labelsFound: UnsafeMutablePointer<Int32>? = nil
  ) {
    self.init(first: RowPointer(base), rows: rows, labels: labels, labelsFound: labelsFound)
  }

  @inline(__always)
  package func row(_ index: Int, hidden: Int) -> RowPointer { first.row(index, hidden: hidden) }
}

extension [RowTarget] {
  /// Calls `body` with each run of bytes that groups of rows form, in their order.
  package func forEachRun(hidden: Int, _ body: (UnsafeMutableRawBufferPointer) -> Void) {
    var run: RowsView?
    for group in self where group.rows > 0 {
      let rows = RowsView(group.first, rows: group.rows, hidden: hidden)
      if let open = run {
        if open.row(open.rows).base == rows.first.base {
          run = RowsView(open.first, rows: open.rows + rows.rows, hidden: hidden)
          continue
        }
        body(open.bytes)
      }
      run = rows
    }
    if let run { body(run.bytes) }
  }
}
