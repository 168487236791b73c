import CrosspointCompression
import CrosspointCore
import CrosspointRouting
import CrosspointTokens

/// The phases that the four transfers have in common; the transfer's table says what each does.
extension ExpertExchange {
  /// Encodes what lies in the transfer's sources. Collective where there is a memory to be learned.
  ///
  /// - Parameter tokens: what the rows of a dispatch stand for.
  func encode(
    _ handle: DispatchHandle, tokens: RowsView? = nil, _ attempt: inout Attempt
  ) throws(CrosspointError) {
    let kind = transfer.kind
    let plan = call.plan
    if let plan {
      transfer.note = plan.note
      transfer.measure.wireBytes += plan.bytesSent
    }
    let (format, rounding) = (transferFormat(kind), rounding(kind, handle))
    attempt { () throws(CrosspointError) in try transfer.encode(as: format, rounding: rounding) }
    if let plan, plan.measuresFidelity {
      attempt { () throws(CrosspointError) in try measureFidelity(handle, tokens: tokens) }
    }
    try learn(handle, &attempt)
  }

  /// Announces what has been encoded, and keeps what went wrong until the call is finished. Collective, but waits for nobody.
  func announce(_ call: TransferCall, _ attempt: borrowing Attempt) throws(CrosspointError) {
    try transfer.beginAnnouncement(attempt)
    call.failure = attempt.failure
  }

  /// The same for rows whose number their receivers know: they make room first.
  ///
  /// - Parameter room: leases memory for the rows that will arrive and fills the transfer's targets.
  func announce(
    _ call: TransferCall, _ attempt: inout Attempt, room: () throws(CrosspointError) -> Void
  ) throws(CrosspointError) {
    attempt { () throws(CrosspointError) in try place(room) }
    try announce(call, attempt)
  }

  /// Hears what the others have announced, and works while they have not. Collective.
  ///
  /// - Parameter room: as for the announcement. It is made once more if others have no rows to be read where they lie: then
  ///   there must be memory for all.
  func hear(
    meanwhile work: LocalWork, _ attempt: inout Attempt, room: () throws(CrosspointError) -> Void
  ) throws(CrosspointError) {
    try transfer.finishAnnouncement(meanwhile: work, &attempt)
    if !transfer.readsInPlace, !transfer.hasPlaces { attempt { () throws(CrosspointError) in try place(room) } }
  }

  private func place(_ room: () throws(CrosspointError) -> Void) throws(CrosspointError) {
    transfer.clearTargets()
    try room()
    try transfer.place()
  }

  /// Moves what was announced to the transfer's targets, and does the caller's work. Collective.
  func move(
    writing: () throws(CrosspointError) -> Bool = { () throws(CrosspointError) in false }, meanwhile work: LocalWork,
    waves: LocalWork = { () throws(CrosspointError) in false }, _ attempt: inout Attempt
  ) throws(CrosspointError) {
    if transfer.settlesPlaces { try transfer.settle(attempt) }
    try transfer.move(writing: writing, meanwhile: work, waves: waves, &attempt)
  }

  /// Ends a transfer on which every rank agrees, or is to agree later. Collective.
  ///
  /// What others may still read or write here must not change before all have done so: then the vote is taken. So it is where
  /// rows that have arrived go on within the node.
  func settle(_ handle: DispatchHandle, _ attempt: borrowing Attempt) throws(CrosspointError) {
    let kind = transfer.kind
    if options.agreement == .deferred, nodeExchange == nil, !transfer.sharesMemory {
      transfer.deferVote(attempt)
    } else {
      try transfer.settle(attempt)
    }
    handle.stage = attempt.hasFailed ? .spoiled : .init(after: kind)
    if let learned = call.learned { memory[kind] = learned }
    if let policy, call.plan != nil { conclude(policy) }
    // Counted at the source in both directions: summed over ranks, what rows as they lie would have taken.
    statistics.record(
      transfer.measure, kind, uncompressedBytes: routedAway(handle, from: localExperts) * transfer.rowBytes)
  }

  /// Returns when no rank has failed in any transfer on this fabric so far, of whichever exchange. Collective.
  ///
  /// For ``ExchangeOptions/Agreement/deferred``: at the end of a step, before anything is kept of its results. Where all is
  /// settled it returns at once.
  /// - Throws: what went wrong on any rank, the same on every rank.
  public func settle() throws(CrosspointError) {
    if fabric.collectiveMemory.isUnsettled { try transfer.agreement.settle(nil, operation: "settle") }
  }

  /// The format of the transfer under way: the policy's, or the caller's.
  func transferFormat(_ kind: TransferKind) -> WireFormat {
    let format = call.plan?.choice.wire ?? options.wire[kind]
    return format.isLossless ? transfer.plain : format
  }

  /// How rows of a transfer are rounded: gradients, which a batch adds up, without bias, by random numbers for this layer,
  /// step, transfer and rank.
  func rounding(_ kind: TransferKind, _ handle: DispatchHandle) -> RowRounding {
    guard kind == .combineBackward || kind == .dispatchBackward else { return .nearest }
    return RowRounding.unbiased(key: options.seed)
      .keyed(by: UInt64(layer)).keyed(by: handle.roundingStep).keyed(by: UInt64(kind.rawValue))
      .keyed(by: UInt64(fabric.rank))
  }

  /// Whether rows that come home are read where they lie, all of them: then they need no memory there.
  var readsAll: Bool { transfer.readsInPlace && transfer.isAllDirect }

  // MARK: - Where rows lie: at home ordered by destination, at the experts by local destination and then by source

  /// The rows from the first on go to the destinations that this rank's tokens chose.
  func sendFromHome(_ handle: DispatchHandle, _ first: RowPointer) {
    for rank in 0..<fabric.rankCount {
      for destination in destinations.served(by: rank) {
        let rows = handle.source.plan.rows(of: destination)
        transfer.sources[rank].append(
          RowSource(first: first.row(rows.lowerBound, hidden: layout.hidden), rows: rows.count))
      }
    }
  }

  /// Rows come back from those destinations.
  func receiveAtHome(_ handle: DispatchHandle, _ first: RowPointer) {
    for rank in 0..<fabric.rankCount {
      for destination in destinations.served(by: rank) {
        let rows = handle.source.plan.rows(of: destination)
        transfer.targets[rank].append(
          RowTarget(
            first: first.row(rows.lowerBound, hidden: layout.hidden), rows: rows.count,
            labels: transfer.kind == .combine ? handle.source.rowLabelBase.map { $0 + rows.lowerBound } : nil))
      }
    }
  }

  /// The rows from the first on go back to the ranks that they came from.
  func sendFromExperts(_ handle: DispatchHandle, _ first: RowPointer) {
    for rank in 0..<fabric.rankCount {
      handle.received.forEachGroup(from: rank) { start, rows in
        transfer.sources[rank].append(
          RowSource(
            first: first.row(start, hidden: layout.hidden), rows: rows,
            importances: transfer.kind == .combine ? handle.received.weightBase.map { UnsafePointer($0 + start) } : nil,
            labels: transfer.kind == .combine ? handle.received.labelBase.map { UnsafePointer($0 + start) } : nil))
      }
    }
  }

  /// Finds the rows of this rank's tokens once they can be read, or written: see ``HomeRows``.
  func find(_ rows: inout HomeRows, _ handle: DispatchHandle, _ first: RowPointer, inNode: Bool) {
    rows.find(
      transfer, handle.source.plan, first, inNode: inNode, hidden: layout.hidden, destinations: destinations)
  }

  /// Looks at a row of another rank's batch that is read where it lies; the error names its first such value.
  func check(
    _ row: RowPointer, _ argument: String
  ) throws(CrosspointError) {
    do throws(CrosspointError) {
      try transfer.check(row)
    } catch {
      // The same on every rank that finds one: of several batches the lowest rank's.
      for rank in 0..<fabric.rankCount where transfer.route(rank) == .direct {
        let rows = try transfer.tables.rowsOffered(by: rank, hidden: layout.hidden, transfer.rows)
        let batch = CheckedBatch(argument: argument, rows: rows)
        if let problem = batch.problem(transfer.kind, rank: rank) { throw problem }
      }
      throw error
    }
  }

  /// Rows come to this rank's destinations.
  func receiveAtExperts(_ handle: DispatchHandle, _ first: RowPointer) {
    for rank in 0..<fabric.rankCount {
      handle.received.forEachGroup(from: rank) { start, rows in
        transfer.targets[rank].append(
          RowTarget(
            first: first.row(start, hidden: layout.hidden), rows: rows,
            labelsFound: transfer.kind == .dispatch ? handle.received.labelBase.map { $0 + start } : nil,
            weightsFound: transfer.kind == .dispatch ? handle.received.weightBase.map { $0 + start } : nil))
      }
    }
  }

  /// Routed pairs of a dispatch whose expert is none of `experts`.
  func routedAway(_ handle: DispatchHandle, from experts: Range<Int>) -> Int {
    let tokensPerExpert = handle.routing.tokensPerExpert
    return tokensPerExpert.indices.reduce(0) { $0 + (experts.contains($1) ? 0 : tokensPerExpert[$1]) }
  }

  /// Members of rows of a dispatch that go to other ranks: routed pairs or, with shared copies, pairs of token and rank or node.
  func pairsAway(_ handle: DispatchHandle) -> Int {
    handle.source.plan.members - handle.source.plan.members(ofExperts: destinations.local)
  }

  // MARK: - Rows

  /// Uninitialised rows from the pool.
  func leaseRows(_ rows: Int, _ type: RowType = .fp32) throws(CrosspointError) -> TokenBatch {
    try TokenBatch(uninitializedRows: rows, hidden: layout.hidden, type: type, pool: pool)
  }

  /// A copy from the pool.
  func copy(_ batch: borrowing TokenBatch) throws(CrosspointError) -> TokenBatch {
    let copy = try TokenBatch(uninitializedRows: batch.rows, hidden: batch.hidden, pool: pool)
    copy.base.update(from: batch.base, count: batch.rows * batch.hidden)
    return copy
  }
}

/// Adds a weighted row to a sum, or begins it; a weight of 1 begins it bit for bit.
@inline(__always)
func add(
  _ row: UnsafePointer<Float>, weight: Float, to sum: UnsafeMutablePointer<Float>, isFirst: Bool, hidden: Int
) {
  switch (isFirst, weight) {
  case (true, 1): sum.update(from: row, count: hidden)
  case (true, _): kernels.scale(sum, weight, row, hidden)
  case (false, _): kernels.axpy(sum, weight, row, hidden)
  }
}
