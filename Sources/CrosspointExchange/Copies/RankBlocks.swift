import CrosspointCore
import CrosspointTokens

/// A block of bytes for each rank, side by side in pooled memory.
struct RankBlocks: ~Copyable {
  /// `[R + 1]`: where each block begins.
  private var start: [Int]
  private var buffer = BufferPool.Buffer.empty
  private let pool: BufferPool

  init(ranks: Int, pool: BufferPool) {
    start = Array(repeating: 0, count: ranks + 1)
    self.pool = pool
  }

  deinit { pool.release(buffer) }

  /// Makes space for `bytes(rank)` bytes each; their values are undefined.
  mutating func layOut(_ bytes: (_ rank: Int) -> Int) throws(CrosspointError) {
    for rank in 0..<start.count - 1 { start[rank + 1] = start[rank] + bytes(rank) }
    let total = start[start.count - 1]
    guard buffer.capacity < total else { return }
    pool.release(buffer)
    buffer = .empty
    buffer = try pool.lease(bytes: total)
  }

  /// Leaves every block empty.
  mutating func clear() {
    for rank in start.indices { start[rank] = 0 }
  }

  subscript(rank: Int) -> UnsafeMutableRawBufferPointer {
    let count = start[rank + 1] - start[rank]
    return UnsafeMutableRawBufferPointer(start: count == 0 ? nil : buffer.base + start[rank], count: count)
  }
}
