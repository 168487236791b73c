import CrosspointCore

/// What rank 0 alone does, and every rank learns the outcome of.
extension Fabric {
  /// Runs `body` on rank 0; every rank throws if it does. Collective.
  public func onRoot(operation: StaticString, _ body: () throws(CrosspointError) -> Void) throws(CrosspointError) {
    try together(operation: operation) { () throws(CrosspointError) in
      if rank == 0 { try body() }
    }
  }

  /// Runs `body` on rank 0 and returns its bytes on every rank, or throws its error on every rank. Collective.
  /// - Throws: also `corruptFrame`, on every rank, where the bytes reach one of them damaged.
  public func shareFromRoot(
    operation: StaticString, _ body: () throws(CrosspointError) -> [UInt8]
  ) throws(CrosspointError) -> [UInt8] {
    var bytes: [UInt8] = []
    try onRoot(operation: operation) { () throws(CrosspointError) in bytes = try body() }
    var count = UInt64(bytes.count)
    try withUnsafeMutableBytes(of: &count) { count throws(CrosspointError) in
      try broadcast(count, from: 0, operation: operation)
    }
    if rank != 0 { bytes = [UInt8](repeating: 0, count: Int(count)) }
    try bytes.withUnsafeMutableBufferPointer { bytes throws(CrosspointError) in
      try broadcast(UnsafeMutableRawBufferPointer(bytes), from: 0, operation: operation)
    }
    return bytes
  }
}
