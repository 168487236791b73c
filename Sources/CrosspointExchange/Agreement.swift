import CrosspointCore
import CrosspointFabric

/// Fail together: what is wrong on one rank becomes the same error on every rank.
enum Agreement {
  /// What every rank says: 16 bytes.
  struct Ballot {
    var failed: UInt32 = 0
    var reserved: UInt32 = 0
    var waitSeconds: Double = 0
  }

  /// Collective. Returns when no rank has failed; `ballots` then holds every rank's word.
  /// - Throws: the lowest failing rank's error, the same on every rank, marked with that rank.
  static func settle(
    _ failure: CrosspointError?, waitSeconds: Double = 0, ballots: UnsafeMutableBufferPointer<Ballot>,
    fabric: any Fabric, operation: StaticString
  ) throws(CrosspointError) {
    ballots[fabric.rank] = Ballot(failed: failure == nil ? 0 : 1, waitSeconds: waitSeconds)
    try fabric.allgather(
      UnsafeRawBufferPointer(UnsafeMutableBufferPointer(rebasing: ballots[fabric.rank...fabric.rank])),
      into: UnsafeMutableRawBufferPointer(ballots), operation: operation)
    guard let lowest = ballots.firstIndex(where: { $0.failed != 0 }) else { return }
    throw try collect(failure, from: lowest, fabric: fabric, operation: operation)
  }

  /// Fetches the failing rank's error.
  private static func collect(
    _ failure: CrosspointError?, from lowest: Int, fabric: any Fabric, operation: StaticString
  ) throws(CrosspointError) -> CrosspointError {
    let record = UnsafeMutableRawBufferPointer.allocate(byteCount: CrosspointError.encodedSize, alignment: 8)
    defer { record.deallocate() }
    _ = record.initializeMemory(as: UInt8.self, repeating: 0)
    // An error that already names a rank (a corrupt frame names its sender) keeps it.
    if let failure { failure.on(rank: failure.rank ?? fabric.rank).encode(into: record) }
    try fabric.broadcast(record, from: lowest, operation: operation)
    return CrosspointError(decoding: UnsafeRawBufferPointer(record))
      ?? CrosspointError(
        .transport, operation: "\(operation)", rank: lowest, argument: "failure record",
        "rank \(lowest) failed but its error did not arrive intact")
  }
}
