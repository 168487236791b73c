/// Rows to encode: contiguous from `base`, or gathered: row i is at `base + indices[i] · hidden`.
///
/// Row i is as important as the magnitude of `importances[i]`; none: all are alike. Only
/// formats that weigh rows ask. Borrows its memory, which must outlive the call it is handed to. Indices are trusted.
package struct RowSource {
  package let base: UnsafePointer<Float>
  package let indices: UnsafePointer<Int32>?
  package let rows: Int
  package let importances: UnsafePointer<Float>?

  package init(
    base: UnsafePointer<Float>, indices: UnsafePointer<Int32>? = nil, rows: Int,
    importances: UnsafePointer<Float>? = nil
  ) {
    precondition(rows >= 0)
    self.base = base
    self.indices = indices
    self.rows = rows
    self.importances = importances
  }

  @inline(__always)
  package func row(_ index: Int, hidden: Int) -> UnsafePointer<Float> {
    base + (indices.map { Int($0[index]) } ?? index) * hidden
  }
}

/// Where decoded rows go: contiguous from `base`. Borrows its memory.
package struct RowTarget {
  package let base: UnsafeMutablePointer<Float>
  package let rows: Int

  package init(base: UnsafeMutablePointer<Float>, rows: Int) {
    precondition(rows >= 0)
    self.base = base
    self.rows = rows
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
