import CrosspointCore

/// Memory that the ranks of a node read and write without a message.
///
/// A rank allocates from it, tells another where its memory lies (``address(of:)``), and that one finds it
/// (``pointer(to:bytes:of:)``). Whatever one rank has stored before an exchange of the fabric, or a vote, another reads after
/// it. Memory stays readable to the others until its owner's fabric ends, however the owner ends.
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
