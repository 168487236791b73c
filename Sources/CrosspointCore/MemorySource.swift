import Glibc

/// Where a pool of buffers takes its memory from.
public protocol MemorySource: AnyObject, Sendable {
  /// Memory at a multiple of 64 bytes; `nil` where so much is not to be had.
  func allocate(bytes: Int) -> UnsafeMutableRawPointer?
  /// Gives back what ``allocate(bytes:)`` gave for as many bytes.
  func deallocate(_ base: UnsafeMutableRawPointer, bytes: Int)
}

/// The allocator of this process.
package final class PrivateMemory: MemorySource {
  package static let shared = PrivateMemory()

  package func allocate(bytes: Int) -> UnsafeMutableRawPointer? {
    var base: UnsafeMutableRawPointer?
    guard posix_memalign(&base, 64, bytes) == 0 else { return nil }
    if leavesSpareMemory() { return base }
    free(base)
    return nil
  }

  package func deallocate(_ base: UnsafeMutableRawPointer, bytes: Int) { free(base) }
}
