import CrosspointCore

/// Fail together: what is wrong on one rank becomes the same error on every rank, marked as agreed.
///
/// A vote is one exchange of 48 bytes per rank, sealed: damage to one of its two copies changes nothing.
public final class Agreement {
  /// What every rank says.
  private struct Ballot {
    var verdict = Verdict.well.rawValue
    var waitSeconds: Double = 0
  }

  /// How a rank fared, the worst last: where several failed, the lowest rank of the worst is named.
  private enum Verdict: UInt64 {
    case well
    /// It only heard that another rank failed.
    case heard
    case failed

    init(_ failure: CrosspointError?) {
      self = failure.map { $0.code == .refusedElsewhere ? .heard : .failed } ?? .well
    }
  }

  private let fabric: any Fabric
  /// One per rank.
  private let ballots: UnsafeMutableBufferPointer<Ballot>
  /// One sealed ballot per rank, and after them this rank's own as it is sent.
  private let records: UnsafeMutableRawBufferPointer
  // Fixed for life, so that a vote allocates nothing.
  private let own: UnsafeMutableRawBufferPointer
  private let outgoing: [UnsafeRawBufferPointer]
  private let incoming: [UnsafeMutableRawBufferPointer]

  public init(fabric: any Fabric) {
    self.fabric = fabric
    let ranks = fabric.rankCount
    let ballots = UnsafeMutableBufferPointer<Ballot>.allocate(capacity: ranks)
    ballots.initialize(repeating: Ballot())
    self.ballots = ballots
    let size = SealedRecord.size(of: MemoryLayout<Ballot>.size)
    let records = UnsafeMutableRawBufferPointer.allocate(byteCount: (ranks + 1) * size, alignment: 8)
    _ = records.initializeMemory(as: UInt8.self, repeating: 0)
    self.records = records
    let blocks = (0...ranks).map { UnsafeMutableRawBufferPointer(rebasing: records[$0 * size..<($0 + 1) * size]) }
    own = blocks[ranks]
    outgoing = Array(repeating: UnsafeRawBufferPointer(blocks[ranks]), count: ranks)
    incoming = Array(blocks[..<ranks])
  }

  deinit {
    ballots.deallocate()
    records.deallocate()
  }

  /// Collective. Returns when no rank has failed.
  ///
  /// - Parameter waitSeconds: how long this rank waited for the others, see ``slowestRank``.
  /// - Throws: the lowest failing rank's error, the same on every rank, marked with that rank and as agreed.
  public func settle(
    _ failure: CrosspointError?, waitSeconds: Double = 0, operation: StaticString
  ) throws(CrosspointError) {
    withUnsafeBytes(of: Ballot(verdict: Verdict(failure).rawValue, waitSeconds: waitSeconds)) {
      SealedRecord.seal($0, into: own)
    }
    try fabric.exchange(send: outgoing, receive: incoming, operation: operation)
    for rank in 0..<fabric.rankCount {
      let ballot = try SealedRecord.open(
        UnsafeRawBufferPointer(incoming[rank]), from: rank, to: fabric.rank, operation: operation)
      ballots[rank] = ballot.loadUnaligned(as: Ballot.self)
    }
    var worst = 0
    for rank in 0..<fabric.rankCount where ballots[rank].verdict > ballots[worst].verdict { worst = rank }
    if ballots[worst].verdict != Verdict.well.rawValue {
      throw try collect(failure, from: worst, operation: operation)
    }
  }

  /// The rank that waited least at the last vote: the one for which the others waited.
  public var slowestRank: Int {
    (0..<fabric.rankCount).min { ballots[$0].waitSeconds < ballots[$1].waitSeconds } ?? 0
  }

  /// Fetches the failing rank's error.
  private func collect(
    _ failure: CrosspointError?, from rank: Int, operation: StaticString
  ) throws(CrosspointError) -> CrosspointError {
    let record = UnsafeMutableRawBufferPointer.allocate(byteCount: CrosspointError.encodedSize, alignment: 8)
    defer { record.deallocate() }
    _ = record.initializeMemory(as: UInt8.self, repeating: 0)
    // An error that already names a rank (a corrupt frame names its sender) keeps it.
    if let failure { failure.on(rank: failure.rank ?? fabric.rank).encode(into: record) }
    try fabric.broadcast(record, from: rank, operation: operation)
    let error =
      CrosspointError(decoding: UnsafeRawBufferPointer(record))
      ?? CrosspointError(
        .transport, operation: "\(operation)", rank: rank, argument: "failure record",
        "rank \(rank) failed but its error cannot be read")
    return error.agreed
  }
}

extension Fabric {
  /// Runs `body` on every rank; every rank throws if any does, the lowest failing rank's error. Collective.
  ///
  /// For what may fail on one rank alone. `body` must not communicate.
  public func together<Result: ~Copyable>(
    operation: StaticString, _ body: () throws(CrosspointError) -> Result
  ) throws(CrosspointError) -> Result {
    var result: Result?
    var failure: CrosspointError?
    do throws(CrosspointError) { result = try body() } catch { failure = error }
    try Agreement(fabric: self).settle(failure, operation: operation)
    return result.take()!
  }

  /// Which of the errors that all ranks have, each its own, is the cause: one that is no ``CrosspointError/Code/refusedElsewhere``,
  /// the lowest rank's. Collective, for a step that has failed on every rank.
  public func cause(of error: CrosspointError, operation: StaticString) -> CrosspointError {
    do throws(CrosspointError) {
      try Agreement(fabric: self).settle(error, operation: operation)
      return error
    } catch {
      return error
    }
  }
}
