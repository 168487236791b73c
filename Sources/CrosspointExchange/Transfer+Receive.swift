import CrosspointCompression
import CrosspointCore
import CrosspointTokens

/// The receiver's half: bodies become rows; rows of the same node are written or read where they lie.
extension Transfer {
  /// Leases memory for what comes from other nodes, and tells the ranks of this one where rows belong.
  ///
  /// Before the announcements as much as may come.
  func place() throws(CrosspointError) {
    var watch = Stopwatch()
    defer { measure.decode += watch.lap() }
    var bytes = 0
    for rank in 0..<fabric.rankCount where route(rank) == .message { bytes += stagedBytes(from: rank) }
    pool.release(staging)
    staging = .empty
    staging = try pool.lease(bytes: bytes)
    guard !readsInPlace else { return }
    for rank in tables.ranks where route(rank) == .direct { tables.setGroups(for: rank, targets[rank]) }
    hasPlaces = true
  }

  /// Bytes from a rank of another node that do not arrive where they belong: in one buffer for all.
  private func stagedBytes(from rank: Int) -> Int {
    let rows = targets[rank].rowCount
    var body = codec.maximumBodyBytes(format, rows: rows, groups: targets[rank].count)
    var metadata = kind == .dispatchBackward ? rows * metadataBytesPerRow : 0
    if isAnnounced {
      let record = announcement(of: rank)
      if record.flags.contains(.carriesBody) { return 0 }
      (body, metadata) = (record.bodyBytes, record.metadataBytes - record.bytesBehind.metadata)
    } else if body + metadata <= smallBytes {
      return 0
    }
    return metadata + (placesBody(from: rank, body) == nil ? body : 0)
  }

  /// How a body of so many bytes can arrive where its rows belong.
  private func placesBody(from rank: Int, _ bytes: Int) -> BodyPlaces? {
    let targets = targets[rank]
    guard bytes > 0 else { return nil }
    if travelsByGroup(rows: targets.rowCount, groups: targets.count, bodyBytes: bytes) { return .groups }
    guard format == plain, let run = targets.run(hidden: codec.hidden), run.count == bytes else { return nil }
    return .run(run)
  }

  private enum BodyPlaces {
    case groups
    case run(UnsafeMutableRawBufferPointer)
  }

  /// Finds where what the ranks have announced lies, or decides where it arrives.
  private func locate() throws(CrosspointError) {
    let nothing = UnsafeRawBufferPointer(start: nil, count: 0)
    for block in incoming.indices { incoming[block] = UnsafeMutableRawBufferPointer(start: nil, count: 0) }
    ready.removeAll(keepingCapacity: true)
    ready.append(contentsOf: tables.ranks)
    var next = staging.base
    func stage(_ block: Int, _ bytes: Int) -> UnsafeRawBufferPointer {
      guard bytes > 0 else { return nothing }
      incoming[block] = UnsafeMutableRawBufferPointer(start: next, count: bytes)
      next += bytes
      return UnsafeRawBufferPointer(incoming[block])
    }
    for rank in 0..<fabric.rankCount {
      let record = announcement(of: rank)
      arrivesInPlace[rank] = false
      if record.flags.contains(.carriesBody) {
        (bodies[rank], metadataIn[rank]) = carried(by: rank)
        ready.append(rank)
      } else if route(rank) == .message {
        if !movesBodies { ready.append(rank) }
        bodies[rank] = nothing
        switch placesBody(from: rank, record.bodyBytes) {
        case .groups:
          for (group, target) in targets[rank].enumerated() {
            incoming[blocks(of: rank) + group] = UnsafeMutableRawBufferPointer(
              start: target.first.base, count: target.rows * rowBytes)
          }
          arrivesInPlace[rank] = true
        case .run(let run):
          incoming[blocks(of: rank)] = run
          arrivesInPlace[rank] = true
        case nil: bodies[rank] = stage(blocks(of: rank), record.bodyBytes)
        }
        if record.flags.contains(.carriesMetadata) {
          metadataIn[rank] = carried(by: rank).metadata
        } else if metadataBytesPerRow > 0 {
          metadataIn[rank] = stage(blocks(of: rank) + groupCapacity, record.metadataBytes)
        }
      }
    }
    for rank in tables.ranks { try locateInNode(rank) }
  }

  /// Finds what a rank of this node has laid out.
  private func locateInNode(_ rank: Int) throws(CrosspointError) {
    let record = announcement(of: rank)
    metadataIn[rank] = try tables.find(.metadata, of: rank, bytes: record.metadataBytes)
    let targets = targets[rank]
    if route(rank) == .frame {
      bodies[rank] = try tables.find(.frame, of: rank, bytes: record.bodyBytes)
    } else if readsInPlace {
      try tables.findGroups(of: rank, targets.count, hidden: codec.hidden, rows, into: &nodeRows[rank]) {
        targets[$0].rows
      }
    }
  }

  /// Moves rows and bodies, decodes each body as it arrives, and does all of the work. Collective.
  ///
  /// What goes wrong on this rank ends its work; the fabric's errors are thrown.
  /// - Parameters:
  ///   - writing: writes all rows for ranks with a direct route to ``nodeRows``, or says that it does not: then the
  ///     transfer does, from ``sources``.
  ///   - waves: does a slice of the work on rows that are there, see ``takeArrival()``; goes before other work.
  func move(
    writing: () throws(CrosspointError) -> Bool, meanwhile work: LocalWork, waves: LocalWork,
    _ attempt: inout Attempt
  ) throws(CrosspointError) {
    var watch = Stopwatch()
    // Bodies come whatever has gone wrong here since the announcements: they need their places.
    if movesBodies || !attempt.hasFailed {
      do throws(CrosspointError) { try locate() } catch { attempt.fail(error) }
    }
    let before = measure.encode + measure.decode + measure.meanwhile
    var progress = Progress(failure: attempt.failure)
    if movesBodies {
      try fabric.exchange(
        send: outgoing, receive: incoming, operation: kind.operation,
        arrived: { rank in
          guard !ready.contains(rank) else { return }
          progress.failure = progress.failure ?? receive(from: rank)
          if notesArrivals { note(.from(rank)) }
        },
        meanwhile: { doSlice(&progress, writing, waves, work) })
    }
    while doSlice(&progress, writing, waves, work) {}
    attempt.fail(progress.failure)
    measure.wait += max(0, watch.lap() - (measure.encode + measure.decode + measure.meanwhile - before))
  }

  /// How far this rank is while bodies are under way. One value, since a closure that does not escape keeps it in place.
  private struct Progress {
    var failure: CrosspointError?
    /// The next step of what need not be waited for.
    var step = 0
    var isWritten = false
  }

  /// What is there first, since others of the node wait for it; then a slice of a wave; then one of the caller's work. Says
  /// whether anything is left.
  private func doSlice(
    _ progress: inout Progress, _ writing: () throws(CrosspointError) -> Bool, _ waves: LocalWork, _ work: LocalWork
  ) -> Bool {
    if progress.step <= ready.count {
      progress.failure = progress.failure ?? doStep(progress.step, writing, &progress.isWritten)
      progress.step += 1
      // This rank's own rows are the first wave, whatever has arrived before.
      if progress.step > ready.count, notesArrivals { note(.atOnce, at: 0) }
    } else if hasWaves {
      hasWaves = slice(of: waves, &progress.failure)
    } else {
      doSlice(of: work, &progress.failure)
    }
    return progress.step <= ready.count || hasWaves || hasWork
  }

  /// A slice of the caller's work, if any is left.
  func doSlice(of work: LocalWork, _ failure: inout CrosspointError?) {
    if hasWork { hasWork = slice(of: work, &failure) }
  }

  /// A slice of some work, unless something has gone wrong, which ends it; says whether any is left.
  private func slice(of work: LocalWork, _ failure: inout CrosspointError?) -> Bool {
    guard failure == nil else { return false }
    var watch = Stopwatch()
    defer { measure.meanwhile += watch.lap() }
    do throws(CrosspointError) {
      return try work()
    } catch {
      failure = error
      return false
    }
  }

  /// One of the steps: finds where rows are to be written, or gives and takes what is another's; returns what went wrong.
  private func doStep(
    _ step: Int, _ writing: () throws(CrosspointError) -> Bool, _ isWritten: inout Bool
  ) -> CrosspointError? {
    if step > 0, let failure = receive(from: ready[step - 1]) { return failure }
    guard !readsInPlace else { return nil }
    var watch = Stopwatch()
    defer { measure.encode += watch.lap() }
    do throws(CrosspointError) {
      if step == 0 {
        try findRowsToWrite()
        isWritten = try writing()
      } else if !isWritten {
        try writeRows(to: ready[step - 1])
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
      return [.corruptFrame, .truncatedFrame, .ranksDisagree].contains(error.code) ? error.on(rank: rank) : error
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
      try codec.decode(header: header, body: bodies[rank], memory: memory, into: targets)
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
