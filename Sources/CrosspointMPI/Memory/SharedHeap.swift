import CrosspointCore
import Glibc
import Synchronization

/// Memory that this rank allocates in its ``MemoryFile``, for others of its node to read and write.
///
/// It grows by segments, each of which lies in one piece. A large block has a segment of its own, which goes back to the
/// system with it; small ones share segments, and free ones that touch join. Made for few allocations: a pool lies above.
final class SharedHeap: Sendable {
  private struct State: ~Copyable {
    /// In the order of their ranges.
    var segments: [Segment] = []
    /// Ranges of the file that have memory and are not in use; in order, none next to another of its segment.
    var free: [Range<Int>] = []
    /// Where the next segment starts: no offset is used twice.
    var end: Int
    var heldBytes = 0
  }

  nonisolated(unsafe) let control: UnsafeMutableRawPointer
  private let controlBytes: Int
  private let file: MemoryFile
  private let table: SegmentTable
  private let state: Mutex<State>

  /// The least bytes of a segment.
  private static let least = 4 << 20

  /// - Parameter controlBytes: the file's first bytes, which hold the table and what the node needs beside it; zero.
  init(controlBytes: Int) throws(MemoryObstacle) {
    file = try MemoryFile()
    guard let control = file.provide(0..<controlBytes) else { throw .error(errno) }
    self.control = control
    self.controlBytes = controlBytes
    table = SegmentTable(at: control)
    state = Mutex(State(end: controlBytes))
    // Memory of this process is not asked for later.
    state.withLock {
      $0.segments.reserveCapacity(SegmentTable.capacity)
      $0.free.reserveCapacity(SegmentTable.capacity)
    }
  }

  deinit {
    state.withLock { for segment in $0.segments { munmap(segment.base, segment.range.count) } }
    munmap(control, controlBytes)
  }

  /// Memory at a multiple of 64 bytes, and touched; `nil` where the machine has not so much left.
  func allocate(bytes: Int) -> UnsafeMutableRawPointer? {
    guard bytes > 0, bytes < 1 << 48 else { return nil }
    let size = round(bytes, to: 64)
    return state.withLock { state in
      var best: Int?
      for (index, range) in state.free.enumerated()
      where range.count >= size && best.map({ range.count < state.free[$0].count }) ?? true { best = index }
      if let best {
        let range = state.free[best]
        if range.count == size {
          state.free.remove(at: best)
        } else {
          state.free[best] = range.dropFirst(size)
        }
        return Self.find(range.prefix(size), in: state)
      }
      return grow(&state, size)
    }
  }

  func deallocate(_ base: UnsafeMutableRawPointer, bytes: Int) {
    state.withLock { state in
      guard let segment = Self.segment(of: base, state) else { preconditionFailure("memory of another heap") }
      let start = segment.range.lowerBound + (base - segment.base)
      var range = start..<(start + round(bytes, to: 64))
      var place = state.free.firstIndex { $0.lowerBound > start } ?? state.free.count
      if place < state.free.count, state.free[place].lowerBound == range.upperBound,
        range.upperBound < segment.range.upperBound
      {
        range = start..<state.free.remove(at: place).upperBound
      }
      if place > 0, state.free[place - 1].upperBound == start, start > segment.range.lowerBound {
        place -= 1
        range = state.free.remove(at: place).lowerBound..<range.upperBound
      }
      if range == segment.range, range.count > Self.least {
        drop(segment, of: &state)
      } else {
        state.free.insert(range, at: place)
      }
    }
  }

  /// What others open the file by.
  var name: MemoryFile.Name { file.name }

  /// Where a range of the file lies in this process.
  func find(_ range: Range<Int>) -> UnsafeMutableRawPointer? {
    state.withLock { Self.find(range, in: $0) }
  }

  private static func find(_ range: Range<Int>, in state: borrowing State) -> UnsafeMutableRawPointer? {
    for segment in state.segments {
      if let found = segment.find(range) { return found }
    }
    return nil
  }

  /// The offset in the file of memory that was allocated here.
  func offset(of pointer: UnsafeRawPointer) -> Int? {
    state.withLock { state in
      Self.segment(of: pointer, state).map { $0.range.lowerBound + (pointer - UnsafeRawPointer($0.base)) }
    }
  }

  /// A block in a segment of its own or, if it is small, at the start of one that is an eighth of the heap.
  private func grow(_ state: inout State, _ size: Int) -> UnsafeMutableRawPointer? {
    let bytes = round(max(size, Self.least, state.heldBytes / 8), to: 4096)
    let range = state.end..<(state.end + bytes)
    guard let base = file.provide(range) else { return nil }
    guard leavesSpareMemory(), table.insert(range) else {
      munmap(base, bytes)
      file.discard(range)
      return nil
    }
    state.end = range.upperBound
    state.segments.append(Segment(range: range, base: base))
    state.heldBytes += bytes
    if size < bytes { state.free.append(range.dropFirst(size)) }
    return base
  }

  private func drop(_ segment: Segment, of state: inout State) {
    table.remove(segment.range)
    state.segments.removeAll { $0.range == segment.range }
    state.heldBytes -= segment.range.count
    munmap(segment.base, segment.range.count)
    file.discard(segment.range)
  }

  private static func segment(of pointer: UnsafeRawPointer, _ state: borrowing State) -> Segment? {
    state.segments.first { pointer >= $0.base && pointer < $0.base + $0.range.count }
  }
}

/// The least multiple of `step`, a power of two, that is no less.
func round(_ bytes: Int, to step: Int) -> Int { (bytes + step - 1) & ~(step - 1) }
