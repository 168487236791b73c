import CrosspointCompression
import CrosspointCore
import CrosspointRouting
import CrosspointTokens

extension ExpertExchange {
  /// Sends every routed token, or the centroid that stands for it, to the rank of its expert. Collective.
  ///
  /// - Parameters:
  ///   - tokens: `[T × hidden]`; T may differ between ranks and may be zero. Without clustering, those that are sent
  ///     nowhere are not checked for NaN and infinity.
  ///   - routing: where each token goes; −1 is not sent.
  ///   - work: what this rank does while bytes are under way, in slices: see ``LocalWork``.
  /// - Returns: the rows for this rank's experts, and the way home.
  /// - Throws: `invalidArgument`, `nonFinite`, `outOfMemory`, `ranksDisagree`, `corruptFrame`, what the work throws, and the fabric's
  ///   errors; the same on every rank.
  /// - Source: LSH-MoE, Algorithm 1, steps 1 to 4 (arXiv 2411.08446).
  public func dispatch(
    _ tokens: borrowing TokenBatch, _ routing: Routing,
    meanwhile work: LocalWork = { () throws(CrosspointError) in false }
  ) throws(CrosspointError) -> DispatchHandle {
    let handle = vacantHandle()
    handle.roundingStep = gradientSteps
    var failure = problem(tokens: tokens, routing: routing)
    if failure == nil {
      regroup(routing, handle)
      do throws(CrosspointError) { try handle.plan.group(handle.lanes) } catch { failure = error }
    }
    handle.routing = routing
    let base = tokens.base
    policy?.begin(.dispatch)
    let rounding = rounding(.dispatch, handle)
    try look(.dispatch, handle, rounding, failure: &failure) { peer, groups in
      for expert in expertsOf(peer) {
        let members = handle.plan.tokens(at: handle.plan.members(of: expert))
        groups.append(RowSource(base: base, indices: members.baseAddress, rows: members.count))
      }
    }
    if failure == nil {
      do throws(CrosspointError) {
        try plan(handle, tokens, choices: routing.topK)
        try markCopies(routing, handle)
        if options.wire.dispatch.weighsRows { handle.importances = try importances(handle) }
      } catch {
        failure = error
      }
    }
    try move(
      .dispatch, handle, rounding, failure: failure, checked: clusterer == nil ? checked("tokens", tokens) : nil,
      sources: { peer, groups in
        for expert in expertsOf(peer) { groups.append(dispatchSource(expert, handle, base)) }
      },
      sized: { rows throws(CrosspointError) in try makeRoom(handle, rows) },
      targets: { peer, groups in expertSideTargets(peer, handle, handle.rows.base, &groups) },
      completed: { () throws(CrosspointError) in try fanOut(handle) }, meanwhile: work)
    handle.stage = .dispatched
    statistics.dispatches += 1
    statistics.rowsRouted += routing.tokensPerExpert.reduce(0, +)
    statistics.rowsSent += handle.plan.rows
    for expert in 0..<layout.experts { statistics.tokensPerExpert[expert] += routing.tokensPerExpert[expert] }
    return handle
  }

  /// The rows of one expert: gathered tokens, or centroids; with their importances, where they are weighed.
  private func dispatchSource(
    _ expert: Int, _ handle: DispatchHandle, _ tokens: UnsafePointer<Float>
  ) -> RowSource {
    let range = handle.plan.rows(of: expert)
    let importances = handle.importances.rows == 0 ? nil : UnsafePointer(handle.importances.base + range.lowerBound)
    if handle.isClustered {
      return RowSource(
        base: handle.centroids.base + range.lowerBound * layout.hidden, rows: range.count, importances: importances)
    }
    return RowSource(
      base: tokens, indices: handle.plan.memberTokens.base + range.lowerBound, rows: range.count,
      importances: importances)
  }

  /// What each row's members weigh together at home.
  private func importances(_ handle: DispatchHandle) throws(CrosspointError) -> TokenBatch {
    let sums = try TokenBatch(uninitializedRows: handle.plan.rows, hidden: 1, pool: pool)
    sums.base.update(repeating: 0, count: sums.rows)
    for slot in handle.lanes.topkWeights.indices {
      let row = handle.plan.rowOfSlot[slot]
      if row >= 0 { sums.base[row] += handle.lanes.topkWeights[slot].magnitude }
    }
    return sums
  }

  /// Takes note of the announced row counts and allocates the rows.
  private func makeRoom(_ handle: DispatchHandle, _ rows: (Int, Int) -> Int) throws(CrosspointError) {
    let locals = localLanes.count
    handle.receivedRows.resize(fabric.rankCount * locals)
    handle.rowsPerLane.resize(locals)
    for local in 0..<locals {
      handle.rowsPerLane[local] = 0
      for peer in 0..<fabric.rankCount {
        handle.receivedRows[peer * locals + local] = rows(peer, local)
        handle.rowsPerLane[local] += rows(peer, local)
      }
    }
    handle.rows = try leaseRows(handle.rowsReceived)
  }

  /// Decides which rows are sent and computes the centroids; also measures what stays home.
  private func plan(
    _ handle: DispatchHandle, _ tokens: borrowing TokenBatch, choices: Int
  ) throws(CrosspointError) {
    handle.isClustered = clustersNow
    guard handle.isClustered, let clusterer else {
      try handle.plan.assignOwnRows()
      return
    }
    var watch = Stopwatch()
    try clusterer.prepare(tokens, choices: choices)
    // Room for as many as the last time and some more: then memory seldom has to grow.
    var centroids = try Centroids(
      hidden: layout.hidden, room: lastCentroidCount + lastCentroidCount / 8, most: handle.plan.members, pool: pool)
    try handle.plan.assignClusters(clusterer, into: &centroids)
    lastCentroidCount = centroids.count
    let (residual, energy) = (centroids.residualSquared, centroids.tokenSquared)
    handle.centroids = centroids.takeRows()
    statistics.seconds.hash += watch.lap()
    statistics.residualSquared += residual
    statistics.tokenSquared += energy
    policy?.note(
      clusters: handle.plan.rows - handle.plan.rows(of: localLanes).count,
      residualEnergy: residual == 0 ? 0 : residual / energy)
    if compensates(handle) { handle.tokens = try copy(tokens) }
    statistics.seconds.cluster += watch.lap()
  }

  /// A copy from the pool.
  func copy(_ batch: borrowing TokenBatch) throws(CrosspointError) -> TokenBatch {
    let copy = try TokenBatch(uninitializedRows: batch.rows, hidden: batch.hidden, pool: pool)
    copy.base.update(from: batch.base, count: batch.rows * batch.hidden)
    return copy
  }
}
