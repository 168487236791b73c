import CrosspointCore
import Foundation

/// Floats that grow on demand and are reused from step to step.
final class FloatBuffer {
  private(set) var storage: UnsafeMutableBufferPointer<Float>

  /// Without floats yet.
  init() { storage = UnsafeMutableBufferPointer(start: .allocate(capacity: 1), count: 0) }

  /// - Throws: `outOfMemory`.
  init(_ count: Int) throws(CrosspointError) { storage = try Self.zeros(count, 1) }

  deinit { free(storage.baseAddress) }

  var base: UnsafeMutablePointer<Float> { storage.baseAddress! }

  /// The first `rows · columns` floats as a matrix; contents survive until a larger one is asked for. Memory that has to
  /// grow gets half as much to spare, so that sizes which change from step to step soon need no more.
  /// - Throws: `outOfMemory`; then the old contents are still there.
  func matrix(_ rows: Int, _ columns: Int) throws(CrosspointError) -> Matrix {
    let (count, overflow) = rows.multipliedReportingOverflow(by: columns)
    if overflow || count > storage.count {
      let larger = try Self.zeros(rows, columns, hasSpare: !storage.isEmpty)
      free(storage.baseAddress)
      storage = larger
    }
    return Matrix(base, rows, columns)
  }

  private static func zeros(
    _ rows: Int, _ columns: Int, hasSpare: Bool = false
  ) throws(CrosspointError) -> UnsafeMutableBufferPointer<Float> {
    let (needed, overflow) = rows.multipliedReportingOverflow(by: columns)
    let count = needed < 1 << 59 && hasSpare ? needed + needed / 2 : needed
    var memory: UnsafeMutableRawPointer?
    guard !overflow, count < 1 << 60, posix_memalign(&memory, 64, max(64, 4 * count)) == 0, let memory else {
      throw CrosspointError(
        .outOfMemory, operation: "model", argument: "memory",
        "none for \(rows) · \(columns) floats: take a smaller model or batch, more ranks, or a higher limit (ulimit -v)"
      )
    }
    let floats = memory.bindMemory(to: Float.self, capacity: count)
    floats.initialize(repeating: 0, count: count)
    return UnsafeMutableBufferPointer(start: floats, count: count)
  }
}
