#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#elseif canImport(Darwin)
  import Darwin
#endif

/// A row, or the first of several, where it lies. Borrows its memory.
package struct RowPointer {
  package let base: UnsafeMutableRawPointer
  package let type: RowType

  @inline(__always)
  package init(_ base: UnsafeMutableRawPointer, _ type: RowType) { (self.base, self.type) = (base, type) }

  @inline(__always)
  package init(_ floats: UnsafePointer<Float>) {
    self.init(UnsafeMutableRawPointer(mutating: floats), .fp32)
  }

  /// The elements of a row that must be one of floats.
  @inline(__always)
  package var floats: UnsafeMutablePointer<Float> {
    precondition(type == .fp32, "\(type) rows, read as floats")
    return base.assumingMemoryBound(to: Float.self)
  }

  /// The row so many behind this one.
  @inline(__always)
  package func row(_ index: Int, hidden: Int) -> RowPointer {
    RowPointer(base + index * hidden * type.bytes, type)
  }

  package subscript(_ index: Int) -> Float {
    switch type {
    case .fp32: floats[index]
    case .bf16:
      Float(bitPattern: UInt32(base.loadUnaligned(fromByteOffset: 2 * index, as: UInt16.self)) << 16)
    }
  }

  /// The elements as floats: where they lie, or widened into `scratch`.
  @inline(__always)
  package func floats(_ count: Int, scratch: UnsafeMutablePointer<Float>) -> UnsafePointer<Float> {
    switch type {
    case .fp32: return UnsafePointer(floats)
    case .bf16:
      kernels.bf16_decode(scratch, base, count, 1)
      return UnsafePointer(scratch)
    }
  }

  /// Stores floats, rounded to the row's type.
  @inline(__always)
  package func store(_ values: UnsafePointer<Float>, _ count: Int) {
    switch type {
    case .fp32: memcpy(base, values, 4 * count)
    case .bf16: kernels.bf16_encode(base, values, count, 1)
    }
  }

  /// Stores what another row holds: bit for bit where it is of the same type.
  @inline(__always)
  package func store(_ row: RowPointer, _ count: Int) {
    switch (row.type, type) {
    case (.fp32, _): store(row.floats, count)
    case (.bf16, .bf16): memcpy(base, row.base, 2 * count)
    case (.bf16, .fp32): kernels.bf16_decode(floats, row.base, count, 1)
    }
  }
}

/// Rows one behind the other, where they lie. Borrows their memory.
package struct RowsView {
  package let first: RowPointer
  package let rows: Int
  package let hidden: Int

  package init(_ first: RowPointer, rows: Int, hidden: Int) {
    (self.first, self.rows, self.hidden) = (first, rows, hidden)
  }

  @inline(__always)
  package func row(_ index: Int) -> RowPointer { first.row(index, hidden: hidden) }

  /// All bytes.
  package var bytes: UnsafeMutableRawBufferPointer {
    UnsafeMutableRawBufferPointer(start: first.base, count: rows * hidden * first.type.bytes)
  }
}
