#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// Whether so much memory can be had, asked of the allocator before an array takes it: an array that gets none ends the
/// process.
/// - Throws: `outOfMemory` with the number of bytes.
package func requireMemory(bytes: Int, operation: String, argument: String) throws(CrosspointError) {
  guard let memory = malloc(max(1, bytes)) else {
    throw CrosspointError(
      .outOfMemory, operation: operation, argument: argument,
      "no memory for \(bytes) bytes: free some, or ask for less")
  }
  free(memory)
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
