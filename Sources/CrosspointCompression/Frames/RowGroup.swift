/// Rows to encode: contiguous from `base`, or gathered: row i is at `base + indices[i] · hidden`.
///
/// Row i is as important as the magnitude of `importances[i]`; none: all are alike. Only
/// formats that weigh rows ask. Its label, where rows have some, is at the same place as the row itself. Borrows its memory, which must outlive the call it is handed to. Indices are trusted.
package struct RowSource {
  package let base: UnsafePointer<Float>
  package let indices: UnsafePointer<Int32>?
  package let rows: Int
  package let importances: UnsafePointer<Float>?
  package let labels: UnsafePointer<Int32>?

  package init(
    base: UnsafePointer<Float>, indices: UnsafePointer<Int32>? = nil, rows: Int,
    importances: UnsafePointer<Float>? = nil, labels: UnsafePointer<Int32>? = nil
  ) {
    precondition(rows >= 0)
    self.base = base
    self.indices = indices
    self.rows = rows
    self.importances = importances
    self.labels = labels
  }

  @inline(__always)
  package func row(_ index: Int, hidden: Int) -> UnsafePointer<Float> {
    base + place(index) * hidden
  }

  /// −1 where rows have none.
  @inline(__always)
  package func label(_ index: Int) -> Int32 { labels.map { $0[place(index)] } ?? -1 }

  @inline(__always)
  private func place(_ index: Int) -> Int { indices.map { Int($0[index]) } ?? index }
}

/// Where decoded rows go: contiguous from `base`. Borrows its memory.
///
/// Where labels of rows are known before they come, `labels` has them; where they come with the rows, they are written to
/// `labelsFound`, −1 for those without an anchor.
package struct RowTarget {
  package let base: UnsafeMutablePointer<Float>
  package let rows: Int
  package let labels: UnsafePointer<Int32>?
  package let labelsFound: UnsafeMutablePointer<Int32>?

  package init(
    base: UnsafeMutablePointer<Float>, rows: Int, labels: UnsafePointer<Int32>? = nil,
    labelsFound: UnsafeMutablePointer<Int32>? = nil
  ) {
    precondition(rows >= 0)
    (self.base, self.rows, self.labels, self.labelsFound) = (base, rows, labels, labelsFound)
  }
}

extension [RowTarget] {
  /// Calls `body` with each run of bytes that groups of rows form, in their order.
  package func forEachRun(hidden: Int, _ body: (UnsafeMutableRawBufferPointer) -> Void) {
    var start: UnsafeMutablePointer<Float>?
    var rows = 0
    for group in self where group.rows > 0 {
      if let open = start {
        if open + rows * hidden == group.base {
          rows += group.rows
          continue
        }
        body(UnsafeMutableRawBufferPointer(start: open, count: 4 * rows * hidden))
      }
      start = group.base
      rows = group.rows
    }
    if let start { body(UnsafeMutableRawBufferPointer(start: start, count: 4 * rows * hidden)) }
  }
}
