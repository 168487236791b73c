import CrosspointCore

/// Memory that the ranks of a node read and write without a message.
///
/// A rank allocates from it, tells another where its memory lies (``address(of:)``), and that one finds it
/// (``pointer(to:bytes:of:)``). Whatever one rank has stored before an exchange of the fabric, or a vote, another reads after
/// it. Memory stays readable to the others until its owner's fabric ends, however the owner ends.
///
/// Once the owner's fabric has failed, memory that is given back is given to nobody else: a rank that has not heard of the
/// failure may still write there.
public protocol SharedMemory: MemorySource {
  /// Whether a rank shares memory with this one; it does with itself. The same seen from either side.
  func reaches(_ rank: Int) -> Bool
  /// What another rank finds this memory by; `nil` for memory that ``MemorySource/allocate(bytes:)`` did not give.
  func address(of pointer: UnsafeRawPointer) -> UInt64?
  /// Where memory lies in this process whose address `rank` gave.
  /// - Throws: `corruptFrame` for an address where that rank has no such memory, `outOfMemory` where it cannot be mapped.
  func pointer(
    to address: UInt64, bytes: Int, of rank: Int
  ) throws(CrosspointError) -> UnsafeMutableRawPointer
}

extension Fabric {
  /// Whether a rank shares memory with this one; it does with itself.
  package func sharesMemory(with rank: Int) -> Bool { sharedMemory?.reaches(rank) ?? (rank == self.rank) }
}

/// The memory of a rank that shares none: it reaches itself, by pointers.
package final class UnsharedMemory: SharedMemory {
  private let rank: Int

  package init(rank: Int) { self.rank = rank }

  package func allocate(bytes: Int) -> UnsafeMutableRawPointer? { PrivateMemory.shared.allocate(bytes: bytes) }

  package func deallocate(_ base: UnsafeMutableRawPointer, bytes: Int) {
    PrivateMemory.shared.deallocate(base, bytes: bytes)
  }

  package func reaches(_ rank: Int) -> Bool { rank == self.rank }

  package func address(of pointer: UnsafeRawPointer) -> UInt64? { UInt64(UInt(bitPattern: pointer)) }

  package func pointer(
    to address: UInt64, bytes: Int, of rank: Int
  ) throws(CrosspointError) -> UnsafeMutableRawPointer {
    precondition(reaches(rank), "rank \(rank) shares no memory with rank \(self.rank)")
    return UnsafeMutableRawPointer(bitPattern: UInt(address))!
  }
}
