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
  ///   - labels: one of each token, −1 (none) to 2²⁴, the same for tokens that resemble each other: an
  ///     ``ExchangeOptions/memory`` makes use of them.
  ///   - work: what this rank does while bytes are under way, in slices: see ``LocalWork``.
  /// - Returns: the rows for this rank's experts, and what later transfers need.
  /// - Throws: `invalidArgument`, `nonFinite`, `outOfMemory`, `ranksDisagree`, `corruptFrame`, what the work throws, and the fabric's
  ///   errors; the same on every rank.
  /// - Source: LSH-MoE, Algorithm 1, steps 1 to 4 (arXiv 2411.08446).
  public func dispatch(
    _ tokens: borrowing TokenBatch, _ routing: Routing, labels: [Int32]? = nil,
    meanwhile work: LocalWork = { () throws(CrosspointError) in false }
  ) throws(CrosspointError) -> DispatchHandle {
    try finishDispatch(beginDispatch(tokens, routing, labels: labels, after: nil), meanwhile: work)
  }

  /// Begins a dispatch, to be finished later. Collective, but waits for nobody.
  ///
  /// ```swift
  /// let pending = try exchange.beginDispatch(tokens, routing)
  /// shared.forward(tokens)                        // while rows are under way
  /// let handle = try pending.finish()
  /// ```
  ///
  /// It encodes the rows and sends what can be sent before the others are heard of: announcements, and with them bodies of up
  /// to some 64 KiB to a rank of another node; larger ones travel in `finish`. The result has the bits of the plain call;
  /// what a memory learns holds for transfers that begin after the finish.
  ///
  /// - Any number of transfers can be under way, also of several exchanges. All ranks begin and finish them in the same order,
  ///   and between them all else that communicates on the fabric.
  /// - Rows and results that you pass in must stay where and as they are until the transfer is finished.
  /// - What is wrong on one rank is thrown by `finish`, on every rank; `begin` throws what makes the fabric unusable and what
  ///   goes wrong in transfers that it makes itself: those that a policy, a memory or a copy per node needs.
  /// - What is pending can be finished once. Dropped unfinished it is finished then, and its result and its errors are lost;
  ///   with deferred agreement its errors are thrown by the next vote.
  /// - With a policy one transfer of an exchange can be under way. The first that meets others under way, as many as never
  ///   before, waits for all ranks once.
  public func beginDispatch(
    _ tokens: borrowing TokenBatch, _ routing: Routing, labels: [Int32]? = nil
  ) throws(CrosspointError) -> PendingDispatch {
    PendingDispatch(self, try beginDispatch(tokens, routing, labels: labels, after: nil))
  }

  /// - Parameters:
  ///   - isInWaves: whether this rank's experts work in waves.
  ///   - failure: what is wrong on this rank already.
  package func beginDispatch(
    _ tokens: borrowing TokenBatch, _ routing: Routing, labels: [Int32]?, inWaves isInWaves: Bool = false,
    after failure: CrosspointError?
  ) throws(CrosspointError) -> TransferCall {
    let handle = vacantHandle()
    return try begin(.dispatch, handle, after: failure) { call throws(CrosspointError) in
      transfer.isInWaves = isInWaves
      handle.roundingStep = gradientSteps
      handle.number = transfer.sequence
      if clusterer == nil { transfer.checked = checked("tokens", tokens) }
      var attempt = Attempt(
        call.failure ?? problem(tokens: tokens, routing: routing) ?? problem(labels: labels, tokens: tokens.rows))
      let rows = tokens.view
      call.input = rows
      attempt { () throws(CrosspointError) in
        handle.routing.copy(routing)
        if let labels { try handle.source.keep(labels) }
        if sharesCopies { handle.copies = copies(of: routing, handle.copies.take()) }
        try handle.source.plan.group(handle.destinations)
      }
      if let policy {
        if !attempt.hasFailed { sendMembers(handle, rows.first) }
        try prepare(policy, handle, clusterer, &attempt)
        transfer.clearSources()
      }
      if let clusterer = activeClusterer {
        attempt { () throws(CrosspointError) in try cluster(handle, tokens, with: clusterer) }
      } else {
        attempt { () throws(CrosspointError) in try handle.source.plan.assignOwnRows() }
      }
      if sharesCopies { attempt { () throws(CrosspointError) in try markCopies(handle) } }
      if options.wire.dispatch.weighsRows { attempt { () throws(CrosspointError) in try weighRows(handle) } }
      if !attempt.hasFailed { sendRows(handle, rows.first) }
      try encode(handle, tokens: rows, &attempt)
      attempt { () throws(CrosspointError) in try noteLabels(handle) }
      try announce(call, attempt)
    }
  }

  func finishDispatch(
    _ call: TransferCall, meanwhile work: LocalWork = { () throws(CrosspointError) in false },
    waves: (DispatchHandle, ExpertWave) throws(CrosspointError) -> Void = { _, _ throws(CrosspointError) in }
  ) throws(CrosspointError) -> DispatchHandle {
    try finish(call) { handle, attempt throws(CrosspointError) in
      func wave() throws(CrosspointError) -> Bool {
        try doWave(handle) { wave throws(CrosspointError) in try waves(handle, wave) }
      }
      try transfer.finishAnnouncement(meanwhile: work, &attempt)
      handle.rowsPerExpert.resize(localExperts.count)
      attempt { () throws(CrosspointError) in try makeRoom(handle) }
      attempt { () throws(CrosspointError) in try beginWaves(handle) }
      let tokens = call.input!
      try move(
        writing: { () throws(CrosspointError) in try writeTokens(tokens, handle) }, meanwhile: work, waves: wave,
        &attempt
      )
      handle.received.nameLabels(destinations)
      if sharesCopies, !transfer.notesArrivals {
        attempt { () throws(CrosspointError) in try takeMarks(handle) }
        if sharesCopiesInWaves, !transfer.hasLateRows { doWaves(.all, wave, &attempt) }
      }
      try settle(handle, attempt)
      if let nodeExchange {
        try dispatchWithinNode(nodeExchange, handle)
      } else if !attempt.hasFailed, !transfer.isInWaves, let copies = call.copies.take() {
        fanOut(handle, into: copies)
      }
      try endWaves(handle, wave, &attempt)
      if attempt.hasFailed { handle.spoil() }
      statistics.record(handle.routing, rowsSent: handle.source.plan.rows)
      return handle
    }
  }

  /// A row for every member.
  private func sendMembers(_ handle: DispatchHandle, _ tokens: RowPointer) {
    for rank in 0..<fabric.rankCount {
      for destination in destinations.served(by: rank) {
        let members = handle.source.plan.tokens(at: handle.source.plan.members(of: destination))
        transfer.sources[rank].append(
          RowSource(first: tokens, indices: members.baseAddress, rows: members.count, labels: handle.source.labelBase))
      }
    }
  }

  /// The rows themselves: gathered tokens, or centroids; with their importances, where they are weighed.
  private func sendRows(_ handle: DispatchHandle, _ tokens: RowPointer) {
    let importances = handle.source.importances.rows == 0 ? nil : UnsafePointer(handle.source.importances.base)
    for rank in 0..<fabric.rankCount {
      for destination in destinations.served(by: rank) {
        let rows = handle.source.plan.rows(of: destination)
        let weights = importances.map { $0 + rows.lowerBound }
        transfer.sources[rank].append(
          handle.source.isClustered
            ? RowSource(
              base: handle.source.centroids.base + rows.lowerBound * layout.hidden, rows: rows.count,
              importances: weights)
            : RowSource(
              first: tokens, indices: handle.source.plan.memberTokens.base + rows.lowerBound, rows: rows.count,
              importances: weights, labels: handle.source.labelBase))
      }
    }
  }

  /// Writes each token to all its rows within the node, while it is in the cache; not if rows stand for clusters.
  private func writeTokens(
    _ tokens: RowsView, _ handle: DispatchHandle
  ) throws(CrosspointError) -> Bool {
    if handle.source.isClustered { return false }
    find(&places, handle, handle.rows.view.first, inNode: true)
    let (hidden, transfer, places) = (layout.hidden, transfer, places)
    let (routing, rowOfSlot) = (handle.destinations, handle.source.plan.rowOfSlot.base)
    for token in 0..<routing.tokens {
      let values = tokens.row(token)
      var isChecked = false
      for slot in (token * routing.topK)..<((token + 1) * routing.topK) {
        let row = Int(rowOfSlot[slot])
        guard row >= 0, places.isElsewhere(Int(routing.topkIndices[slot])) else { continue }
        if !isChecked { try transfer.check(values) }
        isChecked = true
        places.row(row, of: Int(routing.topkIndices[slot]), hidden: hidden).store(values, hidden)
      }
    }
    return true
  }

  /// Decides which tokens share a row and averages them; also measures what stays home.
  private func cluster(
    _ handle: DispatchHandle, _ tokens: borrowing TokenBatch, with clusterer: TokenClusterer
  ) throws(CrosspointError) {
    var watch = Stopwatch()
    handle.source.isClustered = true
    try clusterer.prepare(tokens, choices: handle.destinations.topK)
    // Space for as many as the last time and some more: then memory seldom has to grow.
    var centroids = try Centroids(
      hidden: layout.hidden, capacity: lastCentroidCount + lastCentroidCount / 8, most: handle.source.plan.members,
      pool: pool)
    try handle.source.plan.assignClusters(clusterer, into: &centroids)
    lastCentroidCount = centroids.count
    let (residual, energy) = (centroids.residualSquared, centroids.tokenSquared)
    handle.source.centroids = centroids.takeRows()
    statistics.seconds.hash += watch.lap()
    statistics.residualSquared += residual
    statistics.tokenSquared += energy
    policy?.note(
      clusters: handle.source.plan.rows - handle.source.plan.rows(of: destinations.local).count,
      residualEnergy: residual == 0 ? 0 : residual / energy)
    if compensates(handle) { handle.source.tokens = try copy(tokens) }
    statistics.seconds.cluster += watch.lap()
  }

  /// What each row's members weigh together at home.
  private func weighRows(_ handle: DispatchHandle) throws(CrosspointError) {
    let sums = try TokenBatch(uninitializedRows: handle.source.plan.rows, hidden: 1, pool: pool)
    sums.base.update(repeating: 0, count: sums.rows)
    let routing = handle.destinations
    for slot in routing.topkWeights.indices {
      let row = handle.source.plan.rowOfSlot[slot]
      if row >= 0 { sums.base[row] += routing.topkWeights[slot].magnitude }
    }
    handle.source.importances = sums
  }

  /// Takes note of the announced row counts and allocates the rows and what else arrives.
  private func makeRoom(_ handle: DispatchHandle) throws(CrosspointError) {
    try handle.received.note(ranks: fabric.rankCount, destinations: destinations.local.count) { source, destination in
      transfer.rowsAnnounced(by: source, group: destination)
    }
    if transfer.memory != nil { try handle.received.expectLabels() }
    if options.wire.combine.weighsRows { try handle.received.expectWeights(pool) }
    handle.rows = try leaseRows(handle.received.total, options.rows)
    if !sharesCopies {
      for local in 0..<localExperts.count { handle.rowsPerExpert[local] = handle.received.count(of: local) }
    }
    receiveAtExperts(handle, handle.rows.view.first)
    try transfer.place()
  }

  /// What came with shared copies: their marks, and where they go within this rank.
  func takeMarks(_ handle: DispatchHandle) throws(CrosspointError) {
    try readMarks(handle)
    guard nodeExchange == nil else { return }
    call.copies = try placeCopies(handle)
    if transfer.isInWaves { spreadCopies(handle) }
  }
}
