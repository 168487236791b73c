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
    // Their number and checksum.
    var summary = [UInt64(bytes.count), rank == 0 ? fnv1a(bytes) : 0]
    try summary.withUnsafeMutableBufferPointer { summary throws(CrosspointError) in
      try broadcast(UnsafeMutableRawBufferPointer(summary), from: 0, operation: operation)
    }
    if rank != 0 { bytes = [UInt8](repeating: 0, count: Int(summary[0])) }
    try bytes.withUnsafeMutableBufferPointer { bytes throws(CrosspointError) in
      try broadcast(UnsafeMutableRawBufferPointer(bytes), from: 0, operation: operation)
    }
    try together(operation: operation) { () throws(CrosspointError) in
      guard rank == 0 || fnv1a(bytes) == summary[1] else {
        throw CrosspointError(
          .corruptFrame, operation: operation.description, argument: "bytes",
          "\(bytes.count) bytes from rank 0 came damaged: suspect memory or network")
      }
    }
    return bytes
  }
}
