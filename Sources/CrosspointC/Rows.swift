import CCrosspoint
import CrosspointCore
import CrosspointRouting
import CrosspointTokens

/// Rows of C as the exchange takes them: a view where they follow one another, else a copy from the pool.
/// - Throws: `invalidArgument` for what is no such rows, `outOfMemory`.
func input(
  _ pointer: UnsafePointer<crosspoint_rows>?, _ operation: String, _ argument: String, pool: BufferPool
) throws(CrosspointError) -> TokenBatch {
  let rows = try Strided(read(pointer, operation, argument), operation, argument)
  guard let gaps = rows.gaps else { return rows.view() }
  let copy = try rows.room(pool)
  for row in 0..<rows.count { copy.view.row(row).store(gaps.row(row, hidden: rows.stride), rows.columns) }
  return copy
}

/// Where a result belongs: a view of the caller's rows where they follow one another, else rows of the pool that are copied
/// there at the end.
struct ResultRows: ~Copyable {
  let batch: TokenBatch
  private let rows: Strided

  /// - Throws: `invalidArgument` for what is no such rows, `outOfMemory`.
  init(
    _ pointer: UnsafePointer<crosspoint_rows>?, _ operation: String, _ argument: String, pool: BufferPool
  ) throws(CrosspointError) {
    let rows = try Strided(read(pointer, operation, argument), operation, argument)
    batch = rows.gaps == nil ? rows.view() : try rows.room(pool)
    self.rows = rows
  }

  /// The result is there.
  func deliver() {
    guard let gaps = rows.gaps else { return }
    for row in 0..<rows.count { gaps.row(row, hidden: rows.stride).store(batch.view.row(row), rows.columns) }
  }
}

/// Rows of C that have been checked.
private struct Strided {
  let type: RowType
  let base: UnsafeMutableRawPointer?
  let count: Int
  let columns: Int
  let stride: Int

  init(_ rows: crosspoint_rows, _ operation: String, _ argument: String) throws(CrosspointError) {
    switch rows.type {
    case CROSSPOINT_FLOAT32: type = .fp32
    case CROSSPOINT_BFLOAT16: type = .bf16
    default:
      throw invalid(
        operation, argument,
        "type \(rows.type); \(CROSSPOINT_FLOAT32) (float32) or \(CROSSPOINT_BFLOAT16) (bfloat16) is expected")
    }
    let bytes = max(rows.stride, rows.columns).multipliedReportingOverflow(by: 4)
    guard rows.rows >= 0, rows.columns > 0, rows.stride == 0 || rows.stride >= rows.columns, !bytes.overflow,
      !rows.rows.multipliedReportingOverflow(by: bytes.partialValue).overflow
    else {
      throw invalid(
        operation, argument, "\(rows.rows) rows of \(rows.columns) columns, \(rows.stride) apart, are no shape")
    }
    guard rows.data != nil || rows.rows == 0, UInt(bitPattern: rows.data) % UInt(type.bytes) == 0 else {
      let element = type == .fp32 ? "float" : "bfloat16"
      throw invalid(
        operation, argument, "\(rows.rows) rows at \(rows.data.map { "\($0), no address of a \(element)" } ?? "NULL")")
    }
    base = rows.data
    (count, columns) = (Int(rows.rows), Int(rows.columns))
    stride = rows.stride == 0 ? columns : Int(rows.stride)
  }

  /// The first row, where rows do not follow one another.
  var gaps: RowPointer? { stride > columns && count > 1 ? base.map { RowPointer($0, type) } : nil }

  /// As many rows that follow one another.
  func room(_ pool: BufferPool) throws(CrosspointError) -> TokenBatch {
    try TokenBatch(uninitializedRows: count, hidden: columns, type: type, pool: pool)
  }

  func view() -> TokenBatch {
    TokenBatch(
      viewing: RowsView(RowPointer(base ?? BufferPool.Buffer.empty.base, type), rows: count, hidden: columns))
  }
}

/// Rows of a handle as C sees them.
func show(_ batch: borrowing TokenBatch, in rows: UnsafeMutablePointer<crosspoint_rows>) {
  rows.pointee.data = batch.bytes.baseAddress
  rows.pointee.rows = Int64(batch.rows)
  rows.pointee.columns = Int64(batch.hidden)
  rows.pointee.stride = Int64(batch.hidden)
  rows.pointee.type = batch.type == .fp32 ? CROSSPOINT_FLOAT32 : CROSSPOINT_BFLOAT16
}

/// A routing with the tokens' labels, if they have any.
/// - Throws: `invalidArgument` for what is no routing.
func routing(
  _ pointer: UnsafePointer<crosspoint_routing>?, experts: Int
) throws(CrosspointError) -> (Routing, labels: [Int32]?) {
  let routing = try read(pointer, "dispatch", "routing")
  let (slots, overflow) = routing.tokens.multipliedReportingOverflow(by: Int64(routing.top_k))
  guard routing.tokens >= 0, routing.top_k > 0, !overflow, slots <= Int64(Int32.max) else {
    throw invalid("dispatch", "routing", "\(routing.tokens) tokens with \(routing.top_k) choices")
  }
  guard slots == 0 || (routing.experts != nil && routing.weights != nil) else {
    throw invalid("dispatch", "routing", "experts or weights are NULL")
  }
  let plan = try Routing(
    topkIndices: Array(UnsafeBufferPointer(start: routing.experts, count: Int(slots))),
    topkWeights: Array(UnsafeBufferPointer(start: routing.weights, count: Int(slots))), topK: Int(routing.top_k),
    experts: experts)
  return (plan, routing.labels.map { Array(UnsafeBufferPointer(start: $0, count: plan.tokens)) })
}
