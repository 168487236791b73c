import CrosspointCore

/// Rows of activations: `rows × hidden` elements, contiguous, row-major, aligned to 64 bytes; floats, or bfloat16.
///
/// Move-only: one owner at a time, memory returned when the owner ends. Batches that an exchange hands out come from its
/// pool and go back to it.
///
/// ```swift
/// var tokens = try TokenBatch(rows: 4, hidden: 8)      // zeros
/// tokens.elements[0] = 1                               // row 0, column 0
/// tokens.row(3).update(repeating: 2)                   // the last row
/// ```
public struct TokenBatch: ~Copyable, @unchecked Sendable {
  /// Number of rows; zero is ordinary.
  public let rows: Int
  /// Elements per row, at least one.
  public let hidden: Int
  /// How the elements lie in memory.
  public let type: RowType
  private let buffer: BufferPool.Buffer
  private let pool: BufferPool

  /// A batch of zeros.
  /// - Throws: `invalidArgument` for a negative shape, `outOfMemory`.
  public init(rows: Int, hidden: Int, type: RowType = .fp32) throws(CrosspointError) {
    try self.init(rows, hidden, type, from: nil)
    clear()
  }

  /// A batch that holds a copy of `elements` (`rows · hidden` floats), each rounded where it is stored.
  public init(_ elements: [Float], hidden: Int, type: RowType = .fp32) throws(CrosspointError) {
    try self.init(try Self.rows(elements.count, hidden), hidden, type, from: nil)
    let first = view.first
    elements.withUnsafeBufferPointer { if let base = $0.baseAddress { first.store(base, $0.count) } }
  }

  /// A batch of uninitialised rows from a pool.
  package init(
    uninitializedRows rows: Int, hidden: Int, type: RowType = .fp32, pool: BufferPool
  ) throws(CrosspointError) {
    try self.init(rows, hidden, type, from: pool)
  }

  /// - Parameter pool: `nil` for memory of its own, which nobody uses again and which therefore fits exactly.
  private init(_ rows: Int, _ hidden: Int, _ type: RowType, from pool: BufferPool?) throws(CrosspointError) {
    let (count, overflow) = rows.multipliedReportingOverflow(by: hidden)
    let (bytes, overflowBytes) = count.multipliedReportingOverflow(by: type.bytes)
    guard rows >= 0, hidden > 0, !overflow, !overflowBytes else {
      throw CrosspointError(
        .invalidArgument, operation: "TokenBatch", argument: "shape", "\(rows) × \(hidden) is not a shape")
    }
    let pool = pool ?? BufferPool(capacity: BufferPool.aligned(bytes))
    buffer = try pool.lease(bytes: bytes)
    self.rows = rows
    self.hidden = hidden
    self.type = type
    self.pool = pool
  }

  /// A batch without rows.
  package init(emptyOfHidden hidden: Int, type: RowType = .fp32, pool: BufferPool) {
    buffer = .empty
    rows = 0
    self.hidden = hidden
    self.type = type
    self.pool = pool
  }

  /// The caller's own rows, read and written where they lie: `elements.count / hidden` of them, one after the other.
  ///
  /// The memory stays the caller's and must outlive the batch. It needs no alignment but that of a float. Rows with gaps
  /// between them must be copied.
  /// - Throws: `invalidArgument` for floats that do not form whole rows.
  public init(viewing elements: UnsafeMutableBufferPointer<Float>, hidden: Int) throws(CrosspointError) {
    try self.init(viewing: UnsafeMutableRawBufferPointer(elements), hidden: hidden, type: .fp32)
  }

  /// The caller's own rows of any type: as ``init(viewing:hidden:)``, at any address of an element.
  /// - Throws: `invalidArgument` for bytes that do not form whole rows.
  public init(
    viewing bytes: UnsafeMutableRawBufferPointer, hidden: Int, type: RowType
  ) throws(CrosspointError) {
    guard bytes.count.isMultiple(of: type.bytes) else {
      throw CrosspointError(
        .invalidArgument, operation: "TokenBatch", argument: "bytes",
        "\(bytes.count) bytes are no number of \(type) elements")
    }
    rows = try Self.rows(bytes.count / type.bytes, hidden)
    buffer = bytes.baseAddress.map { BufferPool.Buffer(base: $0, capacity: 0) } ?? .empty
    self.hidden = hidden
    self.type = type
    pool = .none
  }

  private static func rows(_ elements: Int, _ hidden: Int) throws(CrosspointError) -> Int {
    guard hidden > 0, elements.isMultiple(of: hidden) else {
      throw CrosspointError(
        .invalidArgument, operation: "TokenBatch", argument: "elements",
        "\(elements) elements do not form rows of \(hidden)")
    }
    return elements / hidden
  }

  /// The same rows, whose memory stays the other's.
  package init(viewing rows: borrowing TokenBatch) { self.init(rows.view, rows.pool) }

  /// Rows whose memory stays another's.
  package init(viewing rows: RowsView) { self.init(rows, .none) }

  private init(_ rows: RowsView, _ pool: BufferPool) {
    buffer = BufferPool.Buffer(base: rows.first.base, capacity: 0)
    self.rows = rows.rows
    hidden = rows.hidden
    type = rows.first.type
    self.pool = pool
  }

  deinit { pool.release(buffer) }

  /// Where the rows lie. Valid as long as the batch is.
  package var view: RowsView { RowsView(RowPointer(buffer.base, type), rows: rows, hidden: hidden) }

  /// - Throws: `invalidArgument` unless the elements are floats: for what works with no others.
  package func requireFloats(operation: String, argument: String) throws(CrosspointError) {
    guard type == .fp32 else {
      throw CrosspointError(
        .invalidArgument, operation: operation, argument: argument, "\(type) rows where fp32 rows are expected")
    }
  }

  /// Makes all elements zero.
  package func clear() { _ = view.bytes.initializeMemory(as: UInt8.self, repeating: 0) }

  /// All bytes, row after row: how rows of another type than floats are read and written. Valid as long as the batch is.
  public var bytes: UnsafeMutableRawBufferPointer { view.bytes }

  /// All floats, row after row; of a batch of floats. Valid as long as the batch is.
  public var elements: UnsafeMutableBufferPointer<Float> {
    UnsafeMutableBufferPointer(start: base, count: rows * hidden)
  }

  /// The floats of one row; of a batch of floats. Valid as long as the batch is.
  public func row(_ index: Int) -> UnsafeMutableBufferPointer<Float> {
    precondition(index >= 0 && index < rows, "row \(index) of a batch of \(rows)")
    return UnsafeMutableBufferPointer(start: base + index * hidden, count: hidden)
  }

  /// Address of the first float; of a batch of floats. Valid as long as the batch is.
  public var base: UnsafeMutablePointer<Float> { view.first.floats }

  /// A copy of all elements as floats.
  public var array: [Float] {
    [Float](unsafeUninitializedCapacity: rows * hidden) { floats, count in
      count = floats.count
      if let base = floats.baseAddress { RowPointer(base).store(view.first, count) }
    }
  }
}
