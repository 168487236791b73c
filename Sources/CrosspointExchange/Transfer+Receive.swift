import CrosspointCompression
import CrosspointCore
import CrosspointTokens

/// The receiver's half: bodies become rows; rows of the same node are written or read where they lie.
extension Transfer {
  /// Decides where what comes from other nodes arrives, and finds or tells where rows lie within this one.
  func place() throws(CrosspointError) {
    var watch = Stopwatch()
    defer { measure.decode += watch.lap() }
    try placeMessages()
    for rank in tables.ranks { try placeInNode(rank) }
  }

  /// Where its rows belong, if a body travels as it is, or in one buffer for all others and the metadata.
  private func placeMessages() throws(CrosspointError) {
    for block in incoming.indices { incoming[block] = UnsafeMutableRawBufferPointer(start: nil, count: 0) }
    var staged = 0
    for rank in 0..<fabric.rankCount where route(rank) == .message {
      arrivesInPlace[rank] = placeBody(from: rank)
      staged += announcement(of: rank).metadataBytes + (arrivesInPlace[rank] ? 0 : announcement(of: rank).bodyBytes)
    }
    staging = try pool.lease(bytes: staged)
    var next = staging.base
    func stage(_ block: Int, _ bytes: Int) -> UnsafeRawBufferPointer {
      guard bytes > 0 else { return UnsafeRawBufferPointer(start: nil, count: 0) }
      incoming[block] = UnsafeMutableRawBufferPointer(start: next, count: bytes)
      next += bytes
      return UnsafeRawBufferPointer(incoming[block])
    }
    for rank in 0..<fabric.rankCount where route(rank) == .message {
      let record = announcement(of: rank)
      if !arrivesInPlace[rank] { bodies[rank] = stage(blocks(of: rank), record.bodyBytes) }
      metadataIn[rank] = stage(blocks(of: rank) + groupCapacity, record.metadataBytes)
    }
  }

  /// Whether a rank's body can arrive where its rows belong; then it does.
  private func placeBody(from rank: Int) -> Bool {
    let (targets, blocks) = (targets[rank], blocks(of: rank))
    let size = announcement(of: rank).bodyBytes
    if size > 0, travelsByGroup(rows: targets.rowCount, groups: targets.count, bodyBytes: size) {
      for (group, target) in targets.enumerated() {
        incoming[blocks + group] = UnsafeMutableRawBufferPointer(start: target.base, count: target.rows * rowBytes)
      }
      return true
    }
    guard size > 0, format == .fp32, let run = targets.run(hidden: codec.hidden), run.count == size else {
      return false
    }
    incoming[blocks] = run
    return true
  }

  /// Finds what a rank of this node has laid out, or tells it where rows belong.
  private func placeInNode(_ rank: Int) throws(CrosspointError) {
    let record = announcement(of: rank)
    metadataIn[rank] = try tables.find(.metadata, of: rank, bytes: record.metadataBytes)
    guard route(rank) == .direct else {
      bodies[rank] = try tables.find(.frame, of: rank, bytes: record.bodyBytes)
      return
    }
    let targets = targets[rank]
    if readsInPlace {
      try tables.findGroups(of: rank, targets.count, hidden: codec.hidden, into: &nodeRows[rank]) { targets[$0].rows }
    } else {
      tables.setGroups(for: rank, targets)
    }
  }

  /// Moves rows and bodies, decodes each body as it arrives, and does all of the work. Collective.
  ///
  /// What goes wrong on this rank ends its work; the fabric's errors are thrown.
  /// - Parameter writing: writes all rows for ranks with a direct route to ``nodeRows``, or says that it does not: then the
  ///   transfer does, from ``sources``.
  func move(
    writing: () throws(CrosspointError) -> Bool, meanwhile work: LocalWork, _ attempt: inout Attempt
  ) throws(CrosspointError) {
    var watch = Stopwatch()
    let before = measure.encode + measure.decode + measure.meanwhile
    var progress = Progress(failure: attempt.failure)
    if tables.ranks.count < fabric.rankCount {
      try fabric.exchange(
        send: outgoing, receive: incoming, operation: kind.operation,
        arrived: { rank in
          if route(rank) == .message { progress.failure = progress.failure ?? receive(from: rank) }
        },
        meanwhile: {
          doSlice(&progress, writing, work)
          return progress.hasWork
        })
    }
    while progress.hasWork { doSlice(&progress, writing, work) }
    attempt.fail(progress.failure)
    measure.wait += max(0, watch.lap() - (measure.encode + measure.decode + measure.meanwhile - before))
  }

  /// How far this rank is while bodies are under way. One value, since a closure that does not escape keeps it in place.
  private struct Progress {
    var failure: CrosspointError?
    /// The next step within the node.
    var step = 0
    var isWritten = false
    var hasWork = true
  }

  /// Within the node first, since others wait for it; then a slice of the caller's work, unless something has gone wrong,
  /// which ends it.
  private func doSlice(
    _ progress: inout Progress, _ writing: () throws(CrosspointError) -> Bool, _ work: LocalWork
  ) {
    if progress.step <= tables.ranks.count {
      progress.failure = progress.failure ?? doNodeStep(progress.step, writing, &progress.isWritten)
      progress.step += 1
      return
    }
    progress.hasWork = false
    guard progress.failure == nil else { return }
    var watch = Stopwatch()
    do throws(CrosspointError) { progress.hasWork = try work() } catch { progress.failure = error }
    measure.meanwhile += watch.lap()
  }

  /// One of the steps within the node: finds where rows are to be written, or gives and takes what is another's; returns what
  /// went wrong.
  private func doNodeStep(
    _ step: Int, _ writing: () throws(CrosspointError) -> Bool, _ isWritten: inout Bool
  ) -> CrosspointError? {
    if step > 0, let failure = receive(from: tables.ranks[step - 1]) { return failure }
    guard !readsInPlace else { return nil }
    var watch = Stopwatch()
    defer { measure.encode += watch.lap() }
    do throws(CrosspointError) {
      if step == 0 {
        try findRowsToWrite()
        isWritten = try writing()
      } else if !isWritten {
        try writeRows(to: tables.ranks[step - 1])
      }
      return nil
    } catch {
      return named(error)
    }
  }

  /// Looks at what came from a rank and decodes its frame; returns what went wrong.
  private func receive(from rank: Int) -> CrosspointError? {
    var watch = Stopwatch()
    defer { measure.decode += watch.lap() }
    do throws(CrosspointError) {
      try checkMetadata(of: rank)
      if route(rank) == .direct { try checkRows(of: rank) } else { try decode(from: rank) }
      return nil
    } catch {
      // A frame that does not decode is its sender's; anything else is this rank's own.
      return error.code == .corruptFrame || error.code == .truncatedFrame ? error.on(rank: rank) : error
    }
  }

  private func checkMetadata(of rank: Int) throws(CrosspointError) {
    guard Announcement.hash(metadataIn[rank]) == announcement(of: rank).metadataHash else {
      throw CrosspointError(
        .corruptFrame, operation: "\(kind.operation)", rank: rank, argument: "metadata",
        "\(metadataIn[rank].count) bytes arrived damaged")
    }
  }

  /// Rows without a frame are as many as are expected.
  private func checkRows(of rank: Int) throws(CrosspointError) {
    let (record, targets) = (announcement(of: rank), targets[rank])
    guard let group = targets.indices.first(where: { targets[$0].rows != record.rows($0) }) else { return }
    throw CrosspointError(
      .corruptFrame, operation: "\(kind.operation)", rank: rank, argument: "rows",
      "group \(group) has \(record.rows(group)); expected \(targets[group].rows)")
  }

  private func decode(from rank: Int) throws(CrosspointError) {
    let (record, targets) = (announcement(of: rank), targets[rank])
    guard record.bodyBytes > 0 || targets.rowCount > 0 else { return }
    let header = UnsafeRawBufferPointer(rebasing: record.header[..<RowCodec.headerBytes(groups: targets.count)])
    if arrivesInPlace[rank] {
      try codec.verify(header: header, in: targets)
    } else {
      try codec.decode(header: header, body: bodies[rank], into: targets)
    }
  }
}

extension [RowTarget] {
  var rowCount: Int { reduce(0) { $0 + $1.rows } }

  /// The run of bytes that all rows form; `nil` if they lie in several places.
  fileprivate func run(hidden: Int) -> UnsafeMutableRawBufferPointer? {
    var runs = 0
    var last: UnsafeMutableRawBufferPointer?
    forEachRun(hidden: hidden) { run in
      runs += 1
      last = run
    }
    return runs == 1 ? last : nil
  }
}
