import CrosspointCore
import Synchronization

/// Reusable 64-byte aligned memory: what makes a training step allocate nothing once it is warm.
///
/// Buffers go back to the pool when their ``TokenBatch`` (or other owner) ends and are handed out again, smallest fit first.
/// The pool grows on demand up to ``capacity`` bytes, counting whole buffers, in use and idle; a request beyond that throws
/// before anything is allocated.
///
/// Sizes that change from step to step reach a steady state:
/// - Buffers come in classes, eight to each power of two, so at most an eighth is added to a request.
/// - A request takes the smallest idle buffer that fits and is not more than sixteen times too large. Where there is none, it
///   replaces the largest idle one that is too small by no more than that, and has an eighth to spare. So between a size and
///   sixteen times it there are never more buffers than were in use at once, every miss makes one of them larger, and misses
///   end.
/// - They end soon: one that nearly fits, to three quarters, is a size that drifts from step to step, and is replaced by one
///   of twice the size.
/// - The pages of a new buffer are touched at once: a step that uses more of it than any before faults none.
package final class BufferPool: Sendable {
  struct State: ~Copyable {
    var idle: [Buffer] = []
    var heldBytes = 0
    var peakBytes = 0
    var allocations = 0
  }

  /// One piece of memory. Give it back with ``BufferPool/release(_:)`` exactly once.
  package struct Buffer: @unchecked Sendable {
    package let base: UnsafeMutableRawPointer
    package let capacity: Int

    /// No memory at all: what a request for zero bytes gets.
    package static let empty = Buffer(base: UnsafeMutableRawPointer(bitPattern: 64)!, capacity: 0)
  }

  /// What a batch of memory that is not pooled refers to.
  static let none = BufferPool(capacity: 0)

  /// The most bytes this pool may hold.
  package let capacity: Int
  private let memory: any MemorySource
  private let state: Mutex<State>

  /// - Parameter memory: where its buffers lie; `nil`: in memory of this process alone.
  package init(capacity: Int = .max, memory: (any MemorySource)? = nil) {
    self.capacity = capacity
    self.memory = memory ?? PrivateMemory.shared
    state = Mutex(State())
  }

  deinit { trim() }

  /// Bytes of the buffers held at most at any moment so far, in use or idle.
  package var peakBytes: Int { state.withLock { $0.peakBytes } }
  /// Calls to the system's allocator so far; constant once warm.
  package var allocations: Int { state.withLock { $0.allocations } }

  /// At least `bytes` bytes of uninitialised memory, aligned to 64; none for zero.
  /// - Throws: ``CrosspointError/Code/outOfMemory`` when the cap or the system forbids it.
  package func lease(bytes: Int) throws(CrosspointError) -> Buffer {
    guard bytes > 0 else { return .empty }
    let (size, spread) = (Self.classSize(bytes), 16)
    return try state.withLock { state throws(CrosspointError) in
      if let fit = Self.first(state.idle, where: { $0 >= size && $0 / spread <= size }, by: <) {
        return state.idle.swapRemove(at: fit)
      }
      guard let tooSmall = Self.first(state.idle, where: { $0 < size && $0 >= size / spread }, by: >) else {
        return try grow(&state, bytes: bytes, wanted: size)
      }
      let nearlyFits = state.idle[tooSmall].capacity >= size / 4 * 3
      drop(tooSmall, of: &state)
      return try grow(&state, bytes: bytes, wanted: Self.classSize(nearlyFits ? 2 * size : size + size / 8))
    }
  }

  /// Takes a leased buffer back.
  package func release(_ buffer: Buffer) {
    guard buffer.capacity > 0 else { return }
    state.withLock { $0.idle.append(buffer) }
  }

  /// Frees every idle buffer.
  package func trim() {
    state.withLock { state in
      while let last = state.idle.indices.last { drop(last, of: &state) }
    }
  }

  /// A buffer of the size that is wanted, or under a cap that leaves less, of what is left.
  private func grow(_ state: inout State, bytes: Int, wanted: Int) throws(CrosspointError) -> Buffer {
    let least = Self.aligned(bytes)
    while least > capacity - state.heldBytes, let largest = Self.first(state.idle, where: { _ in true }, by: >) {
      drop(largest, of: &state)
    }
    let left = capacity - state.heldBytes
    guard least <= left else {
      throw CrosspointError(
        .outOfMemory, operation: "lease", argument: "capacity",
        "\(least) bytes wanted, \(state.heldBytes) in use, cap \(capacity): raise the cap or send fewer tokens")
    }
    let size = max(least, min(wanted, left & ~63))
    guard let base = memory.allocate(bytes: size) else {
      throw CrosspointError(
        .outOfMemory, operation: "lease", argument: "bytes", "the system has no \(size) bytes left")
    }
    for page in stride(from: 0, to: size, by: 4096) { base.storeBytes(of: 0, toByteOffset: page, as: UInt8.self) }
    state.heldBytes += size
    state.peakBytes = max(state.peakBytes, state.heldBytes)
    state.allocations += 1
    Log.write(.debug, "a new buffer of \(size) bytes, \(state.heldBytes) in all")
    return Buffer(base: base, capacity: size)
  }

  /// Where the idle buffer lies whose capacity comes first in an order, of those that will do.
  private static func first(
    _ idle: [Buffer], where willDo: (Int) -> Bool, by precedes: (Int, Int) -> Bool
  ) -> Int? {
    var best: Int?
    for (index, buffer) in idle.enumerated() where willDo(buffer.capacity) {
      if best.map({ precedes(buffer.capacity, idle[$0].capacity) }) ?? true { best = index }
    }
    return best
  }

  private func drop(_ index: Int, of state: inout State) {
    let buffer = state.idle.swapRemove(at: index)
    state.heldBytes -= buffer.capacity
    memory.deallocate(buffer.base, bytes: buffer.capacity)
  }

  /// The least class that holds so many bytes: a multiple of an eighth of the power of two below, and of 64.
  static func classSize(_ bytes: Int) -> Int {
    let powerOfTwo = 1 << (Int.bitWidth - 1 - max(1, bytes).leadingZeroBitCount)
    return round(bytes, to: max(64, powerOfTwo / 8))
  }

  /// The least multiple of 64.
  static func aligned(_ bytes: Int) -> Int { round(bytes, to: 64) }

  /// Not beyond what Int holds: the system refuses such a size anyway.
  private static func round(_ bytes: Int, to step: Int) -> Int {
    bytes > .max - (step - 1) ? bytes : (bytes + step - 1) & ~(step - 1)
  }
}

extension Array {
  /// Removes and returns the element at `index` in constant time; the last element takes its place.
  fileprivate mutating func swapRemove(at index: Int) -> Element {
    swapAt(index, count - 1)
    return removeLast()
  }
}
