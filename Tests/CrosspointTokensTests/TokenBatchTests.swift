import CrosspointCore
import CrosspointTestSupport
import CrosspointTokens
import Testing

struct TokenBatchTests {
  @Test func aNewBatchIsZeroAndAligned() throws {
    let batch = try TokenBatch(rows: 5, hidden: 7)
    #expect(batch.array == Array(repeating: 0, count: 35))
    #expect(UInt(bitPattern: batch.base) % 64 == 0)
  }

  @Test func rowsFollowOneAnother() throws {
    let batch = try TokenBatch([1, 2, 3, 4, 5, 6], hidden: 2)
    #expect(batch.rows == 3)
    #expect(Array(batch.row(2)) == [5, 6])
    batch.row(1)[0] = 9
    batch.elements[5] = 8
    #expect(batch.array == [1, 2, 9, 4, 5, 8])
  }

  @Test func aViewReadsAndWritesTheCallersMemory() throws {
    var memory: [Float] = [0, 1, 2, 3, 4, 5, 6]
    try memory.withUnsafeMutableBufferPointer { memory in
      // At an address that no allocator gives.
      let batch = try TokenBatch(viewing: UnsafeMutableBufferPointer(rebasing: memory[1...]), hidden: 3)
      #expect(batch.base == memory.baseAddress! + 1 && batch.rows == 2)
      batch.row(1)[0] = 9
      let none = try TokenBatch(viewing: UnsafeMutableBufferPointer(start: nil, count: 0), hidden: 3)
      #expect(none.rows == 0)
      do throws(CrosspointError) {
        _ = try TokenBatch(viewing: memory, hidden: 3)
        Issue.record("7 floats were taken for rows of 3")
      } catch {
        #expect(error.code == .invalidArgument && error.message.contains("7 elements"))
      }
    }
    #expect(memory == [0, 1, 2, 3, 9, 5, 6])
  }

  @Test func bfloat16IsRoundedOnceAndReadAsFloats() throws {
    let halfway = [Float(bitPattern: 0x3F80_8000), Float(bitPattern: 0x3F81_8000), 1, -0.0]
    let batch = try TokenBatch(halfway + [.infinity, .nan], hidden: 3, type: .bf16)
    #expect(batch.type == .bf16 && batch.rows == 2 && batch.bytes.count == 12)
    let values = batch.array
    #expect(values[0] == 1 && values[1].bitPattern == 0x3F82_0000 && values[2] == 1)
    #expect(values[3].sign == .minus && values[4] == .infinity && values[5].isNaN)
    // At an odd address.
    let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: 13, alignment: 2)
    defer { memory.deallocate() }
    let rest = UnsafeMutableRawBufferPointer(rebasing: memory[1...])
    rest.copyMemory(from: UnsafeRawBufferPointer(batch.bytes))
    let view = try TokenBatch(viewing: rest, hidden: 3, type: .bf16)
    #expect(firstBitDifference(view.array, values) == nil)
    for bytes in [11, 10] {
      do throws(CrosspointError) {
        _ = try TokenBatch(viewing: .init(rebasing: rest[..<bytes]), hidden: 3, type: .bf16)
        Issue.record("\(bytes) bytes were taken for rows of 3")
      } catch {
        #expect(error.code == .invalidArgument)
      }
    }
  }

  @Test func zeroRowsAreOrdinary() throws {
    let empty = try TokenBatch(rows: 0, hidden: 16)
    #expect(empty.rows == 0)
    #expect(empty.array.isEmpty)
    let none = try TokenBatch([], hidden: 3)
    #expect(none.rows == 0)
    #expect(none.hidden == 3)
  }

  @Test(arguments: [(-1, 4), (4, 0), (4, -1), (-1, -1), (Int.max, 2), (Int.max / 4, 3)])
  func whatIsNoShapeThrows(rows: Int, hidden: Int) {
    // Not in a `#expect(throws:)` closure: a batch cannot be its result.
    do throws(CrosspointError) {
      _ = try TokenBatch(rows: rows, hidden: hidden)
      Issue.record("\(rows) × \(hidden) was taken for a shape")
    } catch {
      #expect(error.code == .invalidArgument)
      #expect(error.message.contains("\(rows) × \(hidden)"))
    }
  }

  @Test(arguments: [0, 4])
  func elementsThatFormNoRowsThrow(hidden: Int) {
    do throws(CrosspointError) {
      _ = try TokenBatch([1, 2, 3, 4, 5], hidden: hidden)
      Issue.record("five floats were taken for rows of \(hidden)")
    } catch {
      #expect(error.code == .invalidArgument)
    }
  }

  @Test func theLargestShapeIsRefusedByTheSystemNotByATrap() {
    do throws(CrosspointError) {
      _ = try TokenBatch(uninitializedRows: Int.max / 4, hidden: 1, pool: BufferPool())
      Issue.record("the system has \(Int.max) bytes")
    } catch {
      #expect(error.code == .outOfMemory)
    }
  }

  @Test func memoryReturnsToThePoolWhenTheBatchEnds() throws {
    let pool = BufferPool()
    for _ in 0..<3 {
      let batch = try TokenBatch(uninitializedRows: 10, hidden: 10, pool: pool)
      batch.elements.update(repeating: 1)
    }
    #expect(pool.allocations == 1)
  }

  @Test func aRandomBatchHoldsTheRandomFloats() throws {
    let batch = try randomBatch(rows: 6, hidden: 5, seed: 2)
    #expect(firstBitDifference(batch.array, randomFloats(30, seed: 2)) == nil)
  }
}
