import CrosspointCore

/// Rows of activations: `rows × hidden` floats, contiguous, row-major, aligned to 64 bytes.
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
  /// Floats per row, at least one.
  public let hidden: Int
  private let buffer: BufferPool.Buffer
  private let pool: BufferPool

  /// A batch of zeros.
  /// - Throws: `invalidArgument` for a negative shape, `outOfMemory`.
  public init(rows: Int, hidden: Int) throws(CrosspointError) {
    try self.init(rows, hidden, from: nil)
    elements.update(repeating: 0)
  }

  /// A batch that holds a copy of `elements` (`rows · hidden` floats).
  public init(_ elements: [Float], hidden: Int) throws(CrosspointError) {
    try self.init(try Self.rows(elements.count, hidden), hidden, from: nil)
    _ = self.elements.update(fromContentsOf: elements)
  }

  /// A batch of uninitialised rows from a pool.
  package init(uninitializedRows rows: Int, hidden: Int, pool: BufferPool) throws(CrosspointError) {
    try self.init(rows, hidden, from: pool)
  }

  /// - Parameter pool: `nil` for memory of its own, which nobody uses again and which therefore fits exactly.
  private init(_ rows: Int, _ hidden: Int, from pool: BufferPool?) throws(CrosspointError) {
    let (count, overflow) = rows.multipliedReportingOverflow(by: hidden)
    let (bytes, overflowBytes) = count.multipliedReportingOverflow(by: MemoryLayout<Float>.stride)
    guard rows >= 0, hidden > 0, !overflow, !overflowBytes else {
      throw CrosspointError(
        .invalidArgument, operation: "TokenBatch", argument: "shape", "\(rows) × \(hidden) is not a shape")
    }
    let pool = pool ?? BufferPool(capacity: BufferPool.aligned(bytes))
    buffer = try pool.lease(bytes: bytes)
    self.rows = rows
    self.hidden = hidden
    self.pool = pool
  }

  /// A batch without rows.
  package init(emptyOfHidden hidden: Int, pool: BufferPool) {
    buffer = .empty
    rows = 0
    self.hidden = hidden
    self.pool = pool
  }

  /// The caller's own rows, read and written where they lie: `elements.count / hidden` of them, one after the other.
  ///
  /// The memory stays the caller's and must outlive the batch. It needs no alignment but that of a float. Rows with gaps
  /// between them must be copied.
  /// - Throws: `invalidArgument` for floats that do not form whole rows.
  public init(viewing elements: UnsafeMutableBufferPointer<Float>, hidden: Int) throws(CrosspointError) {
    rows = try Self.rows(elements.count, hidden)
    buffer = elements.baseAddress.map { BufferPool.Buffer(base: UnsafeMutableRawPointer($0), capacity: 0) } ?? .empty
    self.hidden = hidden
    pool = .none
  }

  private static func rows(_ floats: Int, _ hidden: Int) throws(CrosspointError) -> Int {
    guard hidden > 0, floats.isMultiple(of: hidden) else {
      throw CrosspointError(
        .invalidArgument, operation: "TokenBatch", argument: "elements",
        "\(floats) floats do not form rows of \(hidden)")
    }
    return floats / hidden
  }

  /// The same rows, whose memory stays the other's.
  package init(viewing rows: borrowing TokenBatch) {
    buffer = BufferPool.Buffer(base: rows.buffer.base, capacity: 0)
    self.rows = rows.rows
    hidden = rows.hidden
    pool = rows.pool
  }

  deinit { pool.release(buffer) }

  /// All floats, row after row. Valid as long as the batch is.
  public var elements: UnsafeMutableBufferPointer<Float> {
    UnsafeMutableBufferPointer(start: base, count: rows * hidden)
  }

  /// The floats of one row. Valid as long as the batch is.
  public func row(_ index: Int) -> UnsafeMutableBufferPointer<Float> {
    precondition(index >= 0 && index < rows, "row \(index) of a batch of \(rows)")
    return UnsafeMutableBufferPointer(start: base + index * hidden, count: hidden)
  }

  /// Address of the first float. Valid as long as the batch is.
  public var base: UnsafeMutablePointer<Float> { buffer.base.assumingMemoryBound(to: Float.self) }

  /// A copy of all floats as an array.
  public var array: [Float] { Array(elements) }
}
