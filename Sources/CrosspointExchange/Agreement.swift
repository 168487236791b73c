import CrosspointCore
import CrosspointFabric

/// Fail together: what is wrong on one rank becomes the same error on every rank.
final class Agreement {
  /// What every rank says: 16 bytes.
  private struct Ballot {
    var failed: UInt64 = 0
    var waitSeconds: Double = 0
  }

  private let fabric: any Fabric
  /// One ballot per rank, and after them this rank's own as it is sent.
  private let ballots: UnsafeMutableBufferPointer<Ballot>
  // Fixed for life, so that a vote allocates nothing.
  private let outgoing: [UnsafeRawBufferPointer]
  private let incoming: [UnsafeMutableRawBufferPointer]

  init(fabric: any Fabric) {
    self.fabric = fabric
    let ranks = fabric.rankCount
    let ballots = UnsafeMutableBufferPointer<Ballot>.allocate(capacity: ranks + 1)
    ballots.initialize(repeating: Ballot())
    self.ballots = ballots
    func bytes(of ballot: Int) -> UnsafeMutableRawBufferPointer {
      UnsafeMutableRawBufferPointer(UnsafeMutableBufferPointer(rebasing: ballots[ballot...ballot]))
    }
    outgoing = Array(repeating: UnsafeRawBufferPointer(bytes(of: ranks)), count: ranks)
    incoming = (0..<ranks).map { bytes(of: $0) }
  }

  deinit { ballots.deallocate() }

  /// Collective. Returns when no rank has failed.
  ///
  /// - Parameter waitSeconds: how long this rank waited for the others, see ``slowestRank``.
  /// - Throws: the lowest failing rank's error, the same on every rank, marked with that rank.
  func settle(
    _ failure: CrosspointError?, waitSeconds: Double = 0, operation: StaticString
  ) throws(CrosspointError) {
    ballots[fabric.rankCount] = Ballot(failed: failure == nil ? 0 : 1, waitSeconds: waitSeconds)
    try fabric.exchange(send: outgoing, receive: incoming, operation: operation)
    for rank in 0..<fabric.rankCount where ballots[rank].failed != 0 {
      throw try collect(failure, from: rank, operation: operation)
    }
  }

  /// The rank that waited least at the last vote: the one for which the others waited.
  var slowestRank: Int {
    (0..<fabric.rankCount).min { ballots[$0].waitSeconds < ballots[$1].waitSeconds } ?? 0
  }

  /// Fetches the failing rank's error.
  private func collect(
    _ failure: CrosspointError?, from lowest: Int, operation: StaticString
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
