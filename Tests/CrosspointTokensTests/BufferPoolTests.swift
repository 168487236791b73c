import CrosspointCore
import CrosspointTokens
import Testing

struct BufferPoolTests {
  @Test func buffersAreAlignedAndLargeEnough() throws {
    let pool = BufferPool()
    for bytes in [1, 63, 64, 65, 4096, 100_001] {
      let buffer = try pool.lease(bytes: bytes)
      #expect(UInt(bitPattern: buffer.base) % 64 == 0)
      #expect(buffer.capacity >= bytes)
      pool.release(buffer)
    }
  }

  @Test func zeroBytesCostNothing() throws {
    let pool = BufferPool(capacity: 0)
    pool.release(try pool.lease(bytes: 0))
    #expect(pool.allocations == 0)
    #expect(pool.peakBytes == 0)
  }

  @Test func theCapThrowsBeforeAnythingIsAllocated() throws {
    let pool = BufferPool(capacity: 1024)
    let first = try pool.lease(bytes: 512)
    let error = #expect(throws: CrosspointError.self) { try pool.lease(bytes: 513) }
    #expect(error?.code == .outOfMemory)
    #expect(error?.message.contains("1024") == true)
    #expect(pool.allocations == 1)
    #expect(pool.peakBytes == 512)
    // What the cap leaves can still be had.
    pool.release(try pool.lease(bytes: 512))
    pool.release(first)
  }

  @Test func idleBuffersMakeRoomUnderTheCap() throws {
    let pool = BufferPool(capacity: 1024)
    pool.release(try pool.lease(bytes: 64))
    let whole = try pool.lease(bytes: 1024)
    #expect(pool.peakBytes <= 1024)
    pool.release(whole)
  }

  @Test(arguments: [Int.max, Int.max - 3, Int.max / 2])
  func absurdSizesThrow(bytes: Int) {
    let error = #expect(throws: CrosspointError.self) { try BufferPool().lease(bytes: bytes) }
    #expect(error?.code == .outOfMemory)
  }

  @Test func aRepeatedStepAllocatesNothing() throws {
    let pool = BufferPool()
    func step() throws {
      let a = try TokenBatch(uninitializedRows: 100, hidden: 16, pool: pool)
      let b = try TokenBatch(uninitializedRows: 37, hidden: 16, pool: pool)
      let c = try TokenBatch(uninitializedRows: 1000, hidden: 3, pool: pool)
      #expect(a.rows + b.rows + c.rows == 1137)
    }
    try step()
    let (allocations, peak) = (pool.allocations, pool.peakBytes)
    for _ in 0..<20 { try step() }
    #expect(pool.allocations == allocations)
    #expect(pool.peakBytes == peak)
  }

  @Test func theSmallestFitIsHandedOut() throws {
    let pool = BufferPool()
    let (small, large) = (try pool.lease(bytes: 640), try pool.lease(bytes: 1024))
    pool.release(large)
    pool.release(small)
    let again = try pool.lease(bytes: 600)
    #expect(again.base == small.base)
    pool.release(again)
  }

  @Test func trimmedBuffersAreAllocatedAnew() throws {
    let pool = BufferPool()
    pool.release(try pool.lease(bytes: 64))
    pool.trim()
    pool.release(try pool.lease(bytes: 64))
    #expect(pool.allocations == 2)
    #expect(pool.peakBytes == 64)
  }
}
