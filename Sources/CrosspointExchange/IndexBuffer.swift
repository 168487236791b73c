import CrosspointCore
import CrosspointTokens

/// Int32 indices in pooled memory whose address stays put until the next ``resize(_:)``.
struct IndexBuffer: ~Copyable {
  private(set) var count = 0
  private var buffer = BufferPool.Buffer.empty
  private let pool: BufferPool

  init(pool: BufferPool) { self.pool = pool }

  deinit { pool.release(buffer) }

  /// Makes space for `count` indices; their values are undefined.
  mutating func resize(_ count: Int) throws(CrosspointError) {
    let bytes = count * MemoryLayout<Int32>.stride
    if buffer.capacity < bytes {
      pool.release(buffer)
      buffer = .empty
      buffer = try pool.lease(bytes: bytes)
    }
    self.count = count
  }

  var base: UnsafeMutablePointer<Int32> { buffer.base.assumingMemoryBound(to: Int32.self) }

  subscript(index: Int) -> Int {
    get {
      assert(index >= 0 && index < count)
      return Int(base[index])
    }
    nonmutating set {
      assert(index >= 0 && index < count)
      base[index] = Int32(newValue)
    }
  }
}
