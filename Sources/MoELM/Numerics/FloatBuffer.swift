import CrosspointCore
import Foundation

/// Floats that grow on demand and are reused from step to step.
final class FloatBuffer {
  private(set) var storage: UnsafeMutableBufferPointer<Float>

  /// Without floats yet.
  init() { storage = UnsafeMutableBufferPointer(start: .allocate(capacity: 1), count: 0) }

  /// Zeros.
  /// - Throws: `outOfMemory`.
  init(_ count: Int) throws(CrosspointError) { storage = try Self.zeros(count, 1) }

  deinit { free(storage.baseAddress) }

  var base: UnsafeMutablePointer<Float> { storage.baseAddress! }

  /// The first `rows · columns` floats as a matrix; contents survive until a larger one is asked for.
  ///
  /// A number of rows that varies gets half as much to spare.
  /// - Parameter mostRows: what bounds it, where that is known. Then there are addresses for so many, or for eight times as
  ///   many as now, from the start; they take no memory until they are used.
  /// - Throws: `outOfMemory`; then the old contents are still there.
  func matrix(_ rows: Int, _ columns: Int, mostRows: Int? = nil) throws(CrosspointError) -> Matrix {
    let (count, overflow) = rows.multipliedReportingOverflow(by: columns)
    if overflow || count > storage.count {
      let varies = mostRows != nil || !storage.isEmpty
      let spare = varies && rows < 1 << 56 ? min(rows / 2, max(0, (mostRows ?? .max) - rows)) : 0
      let larger = try Self.zeros(rows + spare, columns, within: spare == 0 ? 0 : min(mostRows ?? 0, 8 * rows))
      free(storage.baseAddress)
      storage = larger
    }
    return Matrix(base, rows, columns)
  }

  /// - Parameter wanted: rows that there should be addresses for.
  private static func zeros(
    _ rows: Int, _ columns: Int, within wanted: Int = 0
  ) throws(CrosspointError) -> UnsafeMutableBufferPointer<Float> {
    for rowsHeld in wanted > rows && addressesAreFree ? [wanted, rows] : [rows] {
      let (count, overflow) = rowsHeld.multipliedReportingOverflow(by: columns)
      guard !overflow, count < 1 << 60, let memory = PrivateMemory.shared.allocate(bytes: max(64, 4 * count)) else {
        continue
      }
      let floats = memory.bindMemory(to: Float.self, capacity: count)
      floats.initialize(repeating: 0, count: rows * columns)
      return UnsafeMutableBufferPointer(start: floats, count: count)
    }
    throw CrosspointError(
      .outOfMemory, operation: "model", argument: "memory",
      "none for \(rows) · \(columns) floats: take a smaller model or batch, more ranks, or a higher limit (ulimit -v)")
  }

  /// Whether addresses that are not used cost nothing: not under a limit on their number (`ulimit -v`).
  private static var addressesAreFree: Bool {
    var limit = rlimit()
    return getrlimit(__rlimit_resource_t(RLIMIT_AS.rawValue), &limit) == 0 && limit.rlim_cur == .max
  }
}
