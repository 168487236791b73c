import Crosspoint

/// What rank 0 alone does, and every rank learns the outcome of.
extension Fabric {
  /// Runs `body` on rank 0 and returns its bytes on every rank, or throws its error on every rank. Collective.
  func shareFromRoot(
    operation: StaticString, _ body: () throws(CrosspointError) -> [UInt8]
  ) throws(CrosspointError) -> [UInt8] {
    var bytes: [UInt8] = []
    // The number of bytes, then the failure if there is one.
    var outcome = [UInt8](repeating: 0, count: 8 + CrosspointError.encodedSize)
    if rank == 0 {
      do {
        bytes = try body()
      } catch {
        outcome.withUnsafeMutableBytes { error.encode(into: UnsafeMutableRawBufferPointer(rebasing: $0[8...])) }
      }
      outcome.withUnsafeMutableBytes { $0.storeBytes(of: UInt64(bytes.count), as: UInt64.self) }
    }
    try outcome.withUnsafeMutableBufferPointer { outcome throws(CrosspointError) in
      try broadcast(UnsafeMutableRawBufferPointer(outcome), from: 0, operation: operation)
    }
    let failure = outcome.withUnsafeBytes { CrosspointError(decoding: UnsafeRawBufferPointer(rebasing: $0[8...])) }
    if let failure { throw failure }
    if rank != 0 {
      let count = outcome.withUnsafeBytes { Int($0.load(as: UInt64.self)) }
      bytes = [UInt8](repeating: 0, count: count)
    }
    try bytes.withUnsafeMutableBufferPointer { bytes throws(CrosspointError) in
      try broadcast(UnsafeMutableRawBufferPointer(bytes), from: 0, operation: operation)
    }
    return bytes
  }

  /// Runs `body` on rank 0; every rank throws if it does. Collective.
  func onRoot(operation: StaticString, _ body: () throws(CrosspointError) -> Void) throws(CrosspointError) {
    _ = try shareFromRoot(operation: operation) { () throws(CrosspointError) in
      try body()
      return []
    }
  }
}
