import CrosspointCore
import Testing

@testable import CrosspointTokens

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

  /// Six buffers at once, of sizes that wander between 2¹⁰ and 2¹⁶, in an order that changes.
  @Test(arguments: [1 as UInt64, 2, 3])
  func changingSizesReachASteadyState(seed: UInt64) throws {
    let pool = BufferPool()
    var generator = SplitMix64(seed: seed)
    for _ in 0..<20_000 {
      let buffers = try (1...6).map { try pool.lease(bytes: $0 * Int.random(in: 1_024...10_922, using: &generator)) }
      for buffer in buffers.shuffled(using: &generator) { pool.release(buffer) }
    }
    // Between a size and sixteen times it there are never more buffers than were in use at once, and every miss moves one
    // of them at least a class higher.
    #expect(pool.allocations <= 2 * 6 * 4 * 8)
    #expect(pool.peakBytes <= 6 * ((1 << 16) + (1 << 12)) * 9 / 8)
  }

  /// What a drift of sizes leaves behind does not stay: a buffer that is replaced is given back to the system.
  @Test func growingSizesReplaceTheBufferThatIsTooSmall() throws {
    let pool = BufferPool()
    for bytes in stride(from: 100_000, through: 1_000_000, by: 100) { pool.release(try pool.lease(bytes: bytes)) }
    // At most twice the last size, and each replacement at least doubles.
    #expect(pool.peakBytes <= 2 * 1_000_000 * 9 / 8)
    #expect(pool.allocations <= 5)
  }

  @Test func atMostAnEighthIsAddedToARequest() {
    for bytes in Array(1...5_000) + [65_536, 65_537, 1 << 40, 1 << 40 + 1] {
      let size = BufferPool.classSize(bytes)
      #expect(size >= bytes && size % 64 == 0 && BufferPool.classSize(size) == size)
      #expect(size <= max((bytes + 63) & ~63, bytes + bytes / 8), "\(bytes) bytes take \(size)")
    }
    #expect(Set((1 << 20...1 << 21).map(BufferPool.classSize)).count == 9)
  }

  @Test func theCapRefusesNothingForTheSakeOfAClass() throws {
    let pool = BufferPool(capacity: 10_000)
    let buffer = try pool.lease(bytes: 9_970)
    #expect(buffer.capacity == 9_984)
    #expect(pool.peakBytes == 9_984)
    pool.release(buffer)
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
