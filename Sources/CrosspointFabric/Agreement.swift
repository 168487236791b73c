import CrosspointCore

/// Fail together: what is wrong on one rank becomes the same error on every rank, marked as agreed.
///
/// A vote is one exchange of 48 bytes per rank, sealed: damage to one of its two copies changes nothing.
package final class Agreement {
  private let fabric: any Fabric
  /// The rank that waited least at the last vote: the one for which the others waited.
  package private(set) var slowestRank = 0

  package init(fabric: any Fabric) { self.fabric = fabric }

  /// Collective. Returns when no rank has failed.
  ///
  /// - Parameters:
  ///   - waitSeconds: how long this rank waited for the others, see ``slowestRank``.
  ///   - subject: the number of what the vote is about, where there may be several.
  /// - Throws: the lowest failing rank's error, the same on every rank, marked with that rank and as agreed; `ranksDisagree`
  ///   where ranks vote about different things.
  package func settle(
    _ failure: CrosspointError?, waitSeconds: Double = 0, subject: Int = 0, operation: StaticString
  ) throws(CrosspointError) {
    slowestRank = try fabric.settle(failure, waitSeconds: waitSeconds, subject: subject, operation: operation)
  }

  /// A vote whose verdicts every rank has told every other in records of its own; sends nothing where all fare well. Collective.
  ///
  /// - Parameters:
  ///   - failure: what this rank's verdict stands for.
  ///   - verdict: what a rank has told.
  /// - Throws: as ``settle(_:waitSeconds:subject:operation:)``.
  package func settle(
    _ failure: CrosspointError?, operation: StaticString, verdict: (_ rank: Int) -> Verdict
  ) throws(CrosspointError) {
    var (worst, worstRank) = (Verdict.well, 0)
    for rank in 0..<fabric.rankCount where verdict(rank).rawValue > worst.rawValue {
      (worst, worstRank) = (verdict(rank), rank)
    }
    if worst != .well { throw try fabric.collect(failure, from: worstRank, operation: operation) }
  }
}

/// How a rank fared, the worst last: where several failed, the lowest rank of the worst is named.
package enum Verdict: UInt64 {
  case well
  /// It only heard that another rank failed.
  case heard
  case failed

  package init(_ failure: CrosspointError?) {
    self = failure.map { $0.code == .refusedElsewhere ? .heard : .failed } ?? .well
  }
}

/// What every rank says in a vote.
private struct Ballot {
  private let verdictAndSubject: UInt64
  let waitSeconds: Double

  init(_ verdict: Verdict, subject: Int, waitSeconds: Double) {
    verdictAndSubject = verdict.rawValue | UInt64(subject) << 8
    self.waitSeconds = waitSeconds
  }

  var verdict: UInt64 { verdictAndSubject & 0xFF }
  /// What it is about.
  var subject: UInt64 { verdictAndSubject >> 8 }
}

extension Fabric {
  /// One vote, see ``Agreement/settle(_:waitSeconds:subject:operation:)``; nothing is allocated. Collective.
  /// - Returns: the rank that waited least.
  @discardableResult
  func settle(
    _ failure: CrosspointError?, waitSeconds: Double = 0, subject: Int = 0, operation: StaticString
  ) throws(CrosspointError) -> Int {
    let failure = collectiveMemory.takeUnsettled() ?? failure
    let mine = Ballot(Verdict(failure), subject: subject, waitSeconds: waitSeconds)
    var (worst, worstRank) = (Verdict.well.rawValue, 0)
    var (leastWait, slowest) = (Double.infinity, 0)
    var (first, other) = (UInt64(0), Int?.none)
    try withUnsafeBytes(of: mine) { bytes throws(CrosspointError) in
      try gather(bytes, operation: operation) { rank, block in
        let ballot = block.loadUnaligned(as: Ballot.self)
        if ballot.verdict > worst { (worst, worstRank) = (ballot.verdict, rank) }
        if ballot.waitSeconds < leastWait { (leastWait, slowest) = (ballot.waitSeconds, rank) }
        if rank == 0 { first = ballot.subject }
        if ballot.subject != first { other = other ?? rank }
      }
    }
    if let other {
      throw CrosspointError(
        .ranksDisagree, operation: "\(operation)", rank: other, argument: "vote",
        "rank \(other) finishes another transfer than rank 0: every rank must begin and finish them in the same order"
      ).agreed
    }
    if worst != Verdict.well.rawValue { throw try collect(failure, from: worstRank, operation: operation) }
    return slowest
  }

  /// Fetches the failing rank's error.
  fileprivate func collect(
    _ failure: CrosspointError?, from source: Int, operation: StaticString
  ) throws(CrosspointError) -> CrosspointError {
    let record = UnsafeMutableRawBufferPointer.allocate(byteCount: CrosspointError.encodedSize, alignment: 8)
    defer { record.deallocate() }
    _ = record.initializeMemory(as: UInt8.self, repeating: 0)
    // An error that already names a rank (a corrupt frame names its sender) keeps it.
    if let failure { failure.on(rank: failure.rank ?? rank).encode(into: record) }
    try broadcast(record, from: source, operation: operation)
    let error =
      CrosspointError(decoding: UnsafeRawBufferPointer(record))
      ?? CrosspointError(
        .transport, operation: "\(operation)", rank: source, argument: "failure record",
        "rank \(source) failed but its error cannot be read")
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
    try settle(failure, operation: operation)
    return result.take()!
  }

  /// Which of the errors that all ranks have, each its own, is the cause: one that is no ``CrosspointError/Code/refusedElsewhere``,
  /// the lowest rank's. Collective, for a step that has failed on every rank.
  package func cause(of error: CrosspointError, operation: StaticString) -> CrosspointError {
    do throws(CrosspointError) {
      try settle(error, operation: operation)
      return error
    } catch {
      return error
    }
  }
}
