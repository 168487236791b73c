/// A row, or the first of several, where it lies. Borrows its memory. Other modules inline what they call for each row.
@frozen @usableFromInline
package struct RowPointer {
  @usableFromInline package let base: UnsafeMutableRawPointer
  @usableFromInline package let type: RowType

  @inlinable @inline(__always)
  package init(_ base: UnsafeMutableRawPointer, _ type: RowType) { (self.base, self.type) = (base, type) }

  @inlinable @inline(__always)
  package init(_ floats: UnsafePointer<Float>) {
    self.init(UnsafeMutableRawPointer(mutating: floats), .fp32)
  }

  /// The elements of a row that must be one of floats.
  @inlinable @inline(__always)
  package var floats: UnsafeMutablePointer<Float> {
    precondition(type.isFloat, "\(type) rows, read as floats")
    return base.assumingMemoryBound(to: Float.self)
  }

  /// The row so many behind this one.
  @inlinable @inline(__always)
  package func row(_ index: Int, hidden: Int) -> RowPointer {
    RowPointer(base + index * hidden * type.bytes, type)
  }

  @inlinable
  package subscript(_ index: Int) -> Float {
    switch type {
    case .fp32: floats[index]
    case .bf16:
      Float(bitPattern: UInt32(base.loadUnaligned(fromByteOffset: 2 * index, as: UInt16.self)) << 16)
    }
  }

  /// The elements as floats: where they lie, or widened into `scratch`.
  @inlinable @inline(__always)
  package func floats(_ count: Int, scratch: UnsafeMutablePointer<Float>) -> UnsafePointer<Float> {
    switch type {
    case .fp32: return UnsafePointer(floats)
    case .bf16:
      widen(into: scratch, count)
      return UnsafePointer(scratch)
    }
  }

  /// Stores floats, rounded to the row's type.
  @inlinable @inline(__always)
  package func store(_ values: UnsafePointer<Float>, _ count: Int) {
    switch type {
    case .fp32: base.copyMemory(from: values, byteCount: 4 * count)
    case .bf16: round(values, count)
    }
  }

  /// Stores what another row holds: bit for bit where it is of the same type.
  @inlinable @inline(__always)
  package func store(_ row: RowPointer, _ count: Int) {
    switch (row.type, type) {
    case (.fp32, .fp32), (.bf16, .bf16): base.copyMemory(from: row.base, byteCount: type.bytes * count)
    case (.fp32, .bf16): round(row.floats, count)
    case (.bf16, .fp32): row.widen(into: floats, count)
    }
  }

  @usableFromInline
  func widen(into values: UnsafeMutablePointer<Float>, _ count: Int) { kernels.bf16_decode(values, base, count, 1) }

  @usableFromInline
  func round(_ values: UnsafePointer<Float>, _ count: Int) { kernels.bf16_encode(base, values, count, 1) }
}

/// Rows one behind the other, where they lie. Borrows their memory.
@frozen @usableFromInline
package struct RowsView {
  @usableFromInline package let first: RowPointer
  @usableFromInline package let rows: Int
  @usableFromInline package let hidden: Int

  @inlinable
  package init(_ first: RowPointer, rows: Int, hidden: Int) {
    (self.first, self.rows, self.hidden) = (first, rows, hidden)
  }

  @inlinable @inline(__always)
  package func row(_ index: Int) -> RowPointer { first.row(index, hidden: hidden) }

  /// All bytes.
  package var bytes: UnsafeMutableRawBufferPointer {
    UnsafeMutableRawBufferPointer(start: first.base, count: rows * hidden * first.type.bytes)
  }
}
