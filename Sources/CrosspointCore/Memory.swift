import Glibc

/// Bytes that are left beside every block of memory: the language's runtime, and MPI, end the process where they get none.
private let spareBytes = 4 << 20

/// Whether small objects can still be made. What is found is left with the allocator, which has it from then on, whatever
/// the limit on the address space becomes.
package func leavesSpareMemory() -> Bool {
  var spare: UnsafeMutableRawPointer?
  guard posix_memalign(&spare, 64, spareBytes) == 0 else { return false }
  free(spare)
  return true
}

/// Whether so much memory can be had, asked of the allocator before an array takes it: an array that gets none ends the
/// process.
/// - Throws: `outOfMemory` with the number of bytes.
package func requireMemory(bytes: Int, operation: String, argument: String) throws(CrosspointError) {
  free(try takeMemory(bytes: bytes, operation: operation, argument: argument).baseAddress)
}

/// Memory at a multiple of 64 bytes, to be given back by `free`.
/// - Throws: `outOfMemory` with the number of bytes.
package func takeMemory(
  bytes: Int, operation: String, argument: String
) throws(CrosspointError) -> UnsafeMutableRawBufferPointer {
  guard let memory = PrivateMemory.shared.allocate(bytes: max(64, bytes)) else {
    throw CrosspointError(
      .outOfMemory, operation: operation, argument: argument,
      "no memory for \(bytes) bytes: free some, or ask for less")
  }
  return UnsafeMutableRawBufferPointer(start: memory, count: bytes)
}
