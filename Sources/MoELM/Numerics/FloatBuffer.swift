/// Floats that grow on demand and are reused from step to step.
final class FloatBuffer {
  private(set) var storage: UnsafeMutableBufferPointer<Float>

  init(_ count: Int = 0) { storage = Self.zeros(count) }

  deinit { storage.deallocate() }

  var base: UnsafeMutablePointer<Float> { storage.baseAddress! }

  /// The first `rows · columns` floats as a matrix; contents survive until a larger one is asked for.
  func matrix(_ rows: Int, _ columns: Int) -> Matrix {
    if rows * columns > storage.count {
      storage.deallocate()
      storage = Self.zeros(rows * columns)
    }
    return Matrix(base, rows, columns)
  }

  private static func zeros(_ count: Int) -> UnsafeMutableBufferPointer<Float> {
    let raw = UnsafeMutableRawBufferPointer.allocate(byteCount: max(64, count * 4), alignment: 64)
    let floats = raw.bindMemory(to: Float.self)
    floats.initialize(repeating: 0)
    return UnsafeMutableBufferPointer(rebasing: floats[..<count])
  }
}
