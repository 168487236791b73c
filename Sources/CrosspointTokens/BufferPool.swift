import CrosspointCore
import Synchronization

#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// Reusable 64-byte aligned memory: what makes a training step allocate nothing once it is warm.
///
/// Buffers go back to the pool when their ``TokenBatch`` (or other owner) ends and are handed out again, smallest fit first.
/// The pool grows on demand up to ``capacity`` bytes, counting buffers in use and idle ones; a request beyond that throws
/// before anything is allocated.
public final class BufferPool: Sendable {
  struct State: ~Copyable {
    var idle: [Buffer] = []
    var heldBytes = 0
    var peakBytes = 0
    var allocations = 0
  }

  /// One piece of memory. Give it back with ``BufferPool/release(_:)`` exactly once.
  public struct Buffer: @unchecked Sendable {
    public let base: UnsafeMutableRawPointer
    public let capacity: Int

    /// No memory at all: what a request for zero bytes gets.
    package static let empty = Buffer(base: UnsafeMutableRawPointer(bitPattern: 64)!, capacity: 0)
  }

  /// The most bytes this pool may hold.
  public let capacity: Int
  private let state: Mutex<State>

  public init(capacity: Int = .max) {
    self.capacity = capacity
    state = Mutex(State())
  }

  deinit {
    state.withLock { state in
      for buffer in state.idle { free(buffer.base) }
    }
  }

  /// Bytes held at most at any moment so far.
  public var peakBytes: Int { state.withLock { $0.peakBytes } }
  /// Calls to the system's allocator so far; constant once warm.
  public var allocations: Int { state.withLock { $0.allocations } }

  /// At least `bytes` bytes of uninitialised memory, aligned to 64; none for zero.
  /// - Throws: ``CrosspointError/Code/outOfMemory`` when the cap or the system forbids it.
  public func lease(bytes: Int) throws(CrosspointError) -> Buffer {
    guard bytes > 0 else { return .empty }
    // Not rounded up beyond what Int holds: the system refuses such a size anyway.
    let wanted = bytes > .max - 63 ? bytes : (bytes + 63) & ~63
    let result: Result<Buffer, CrosspointError> = state.withLock { state in
      if let index = Self.bestFit(state.idle, wanted) { return .success(state.idle.swapRemove(at: index)) }
      if wanted > capacity - state.heldBytes { Self.dropIdle(&state) }
      guard wanted <= capacity - state.heldBytes else {
        return .failure(
          CrosspointError(
            .outOfMemory, operation: "lease", argument: "capacity",
            "\(wanted) bytes wanted, \(state.heldBytes) in use, cap \(capacity): raise the cap or send fewer tokens"))
      }
      var base: UnsafeMutableRawPointer?
      guard posix_memalign(&base, 64, wanted) == 0, let base else {
        return .failure(
          CrosspointError(
            .outOfMemory, operation: "lease", argument: "bytes", "the system has no \(wanted) bytes left"))
      }
      state.heldBytes += wanted
      state.peakBytes = max(state.peakBytes, state.heldBytes)
      state.allocations += 1
      return .success(Buffer(base: base, capacity: wanted))
    }
    return try result.get()
  }

  /// Takes a leased buffer back.
  public func release(_ buffer: Buffer) {
    guard buffer.capacity > 0 else { return }
    state.withLock { $0.idle.append(buffer) }
  }

  /// Frees every idle buffer.
  public func trim() {
    state.withLock { Self.dropIdle(&$0) }
  }

  /// The smallest idle buffer that fits and is not more than twice too large.
  private static func bestFit(_ idle: [Buffer], _ wanted: Int) -> Int? {
    var best: Int?
    for (index, buffer) in idle.enumerated() where buffer.capacity >= wanted && buffer.capacity / 2 <= wanted {
      if best.map({ idle[$0].capacity > buffer.capacity }) ?? true { best = index }
    }
    return best
  }

  private static func dropIdle(_ state: inout State) {
    for buffer in state.idle {
      state.heldBytes -= buffer.capacity
      free(buffer.base)
    }
    state.idle.removeAll(keepingCapacity: true)
  }
}

extension Array {
  /// Removes and returns the element at `index` in constant time; the last element takes its place.
  fileprivate mutating func swapRemove(at index: Int) -> Element {
    swapAt(index, count - 1)
    return removeLast()
  }
}
