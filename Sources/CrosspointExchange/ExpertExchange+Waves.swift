import CrosspointCore
import CrosspointRouting
import CrosspointTokens

/// Experts that begin with the rows that are there: in a dispatch, and with gradients in a combineBackward.
extension ExpertExchange {
  /// ``dispatch(_:_:labels:meanwhile:)`` whose rows are handed to the experts as they come. Collective.
  ///
  /// ```swift
  /// let handle = try exchange.dispatch(tokens, routing) { handle, wave throws(CrosspointError) in
  ///   try experts[wave.expert].forward(handle.rows, wave.rows, into: handle.outputs())
  /// }
  /// let y = try exchange.combine(handle)
  /// ```
  ///
  /// When it returns, every row has been handed out once. This rank's own come first, with what else was there at once; then
  /// those of each rank of another node, as they arrive; last those that ranks of the same node have written here. Which rows
  /// are in a wave does not depend on time, but the order of waves does: do not add up across waves.
  ///
  /// Where nothing is to be gained all rows are one wave, at the end: where no bodies travel beyond their announcements,
  /// with one copy per node, and with one per rank where the marks of a rank's rows are larger than a body that travels with
  /// its announcement, or where not all ranks ask for waves.
  ///
  /// - Parameters:
  ///   - work: see ``LocalWork``; waves go first.
  ///   - waves: the experts' work on some rows, while others are under way. It may use the handle's ``DispatchHandle/rows`` in
  ///     the wave's range, ``DispatchHandle/rowsPerExpert`` and ``DispatchHandle/outputs()``, and is otherwise as a slice of
  ///     `work`. If the transfer fails once rows move, what it made is void and the handle is refused from then on. An error that it throws ends the work and is thrown by the
  ///     transfer on every rank, marked with this one.
  public func dispatch(
    _ tokens: borrowing TokenBatch, _ routing: Routing, labels: [Int32]? = nil,
    meanwhile work: LocalWork = { () throws(CrosspointError) in false },
    waves: (_ handle: DispatchHandle, _ wave: ExpertWave) throws(CrosspointError) -> Void
  ) throws(CrosspointError) -> DispatchHandle {
    try finishDispatch(
      beginDispatch(tokens, routing, labels: labels, inWaves: true, after: nil), meanwhile: work, waves: waves)
  }

  /// ``combineBackward(_:_:meanwhile:)`` whose rows are handed to the experts as they come. Collective.
  ///
  /// - Parameters:
  ///   - work: see ``LocalWork``; waves go first.
  ///   - waves: as for ``dispatch(_:_:labels:meanwhile:waves:)``; `rows` are the ∂L/∂output that will be returned.
  public func combineBackward(
    _ outputGradient: borrowing TokenBatch, _ handle: DispatchHandle,
    meanwhile work: LocalWork = { () throws(CrosspointError) in false },
    waves: (_ rows: borrowing TokenBatch, _ wave: ExpertWave) throws(CrosspointError) -> Void
  ) throws(CrosspointError) -> TokenBatch {
    try finishCombineBackward(
      beginCombineBackward(outputGradient, handle, inWaves: true, after: nil), meanwhile: work, waves: waves)
  }

  /// Whether copies that arrive are handed out by waves, not all at once.
  var sharesCopiesInWaves: Bool { transfer.isInWaves && sharesCopies && nodeExchange == nil }

  /// Decides whether there are waves while rows move, once all have been announced: then marks must have come, too.
  func beginWaves(_ handle: DispatchHandle) throws(CrosspointError) {
    guard transfer.isInWaves, nodeExchange == nil, transfer.movesBodies || !transfer.hasLateRows else { return }
    if sharesCopies, transfer.kind == .dispatch {
      guard try transfer.findEarlyMetadata() else { return }
      try takeMarks(handle)
    }
    transfer.notesArrivals = true
  }

  /// Lays the rows of the experts, which waves fill, and those that arrive where both can be lent: in a dispatch the handle's
  /// rows become those of the experts.
  func spreadCopies(_ handle: DispatchHandle) {
    guard let copies = call.copies.take() else { return }
    call.returned = copies
    if transfer.kind == .dispatch { swap(&call.returned, &handle.rows) }
  }

  /// Hands the next piece of a wave to the experts; says whether more are there.
  func doWave(
    _ handle: DispatchHandle, _ work: (ExpertWave) throws(CrosspointError) -> Void
  ) throws(CrosspointError) -> Bool {
    while call.waves.isEmpty {
      guard let arrival = transfer.takeArrival() else { return false }
      call.waves.begin(experts: localExperts.count)
      if sharesCopiesInWaves { takeCopies(of: arrival, handle) } else { takeRows(of: arrival, handle) }
      call.waves.end()
    }
    try work(call.waves.popFirst()!)
    return !call.waves.isEmpty || !transfer.arrivals.isEmpty
  }

  /// All waves that are not seen before.
  func doWaves(
    _ arrival: Transfer.Arrival, _ wave: LocalWork, _ attempt: inout Attempt
  ) {
    guard transfer.isInWaves else { return }
    var watch = Stopwatch()
    transfer.note(arrival)
    attempt { () throws(CrosspointError) in while try wave() {} }
    statistics.seconds.meanwhile += watch.lap()
  }

  /// The waves of rows that are there only after the vote, if any rank asks for waves; a vote tells how they went. Collective.
  func endWaves(
    _ handle: DispatchHandle, _ wave: LocalWork, _ attempt: inout Attempt
  ) throws(CrosspointError) {
    guard transfer.anyInWaves, transfer.hasLateRows || nodeExchange != nil else { return }
    doWaves(transfer.notesArrivals ? .written : .all, wave, &attempt)
    if options.agreement == .deferred { transfer.deferVote(attempt) } else { try transfer.settle(attempt) }
    if attempt.hasFailed { handle.stage = .spoiled }
  }

  private func takeRows(of arrival: Transfer.Arrival, _ handle: DispatchHandle) {
    var start = 0
    for expert in 0..<localExperts.count {
      guard arrival != .all else {
        call.waves.add(expert, start..<start + handle.rowsPerExpert[expert])
        start += handle.rowsPerExpert[expert]
        continue
      }
      for rank in 0..<fabric.rankCount {
        let rows = start..<start + handle.received.count(rank, expert)
        if transfer.brings(arrival, rank) { call.waves.add(expert, rows) }
        start = rows.upperBound
      }
    }
  }

  /// Makes the copies of rows that have arrived: of tokens, or their share of gradients.
  private func takeCopies(of arrival: Transfer.Arrival, _ handle: DispatchHandle) {
    for rank in 0..<fabric.rankCount where transfer.brings(arrival, rank) {
      let rows = handle.received.rows(from: rank)
      if transfer.kind == .dispatch {
        handle.copies!.fanOut(call.returned, rows, into: handle.rows)
      } else {
        handle.copies!.differentiate(call.result, rows, into: call.returned.base)
      }
      for row in rows {
        handle.copies!.forEachPlace(of: row) { expert, place in call.waves.add(expert, place..<place + 1) }
      }
    }
  }
}
