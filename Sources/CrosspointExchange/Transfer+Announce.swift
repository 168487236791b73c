import CrosspointCompression
import CrosspointCore
import CrosspointFabric
import CrosspointTokens
import Glibc

/// Every rank hears from every other, so an announcement is a vote too.
extension Transfer {
  /// Tells every other rank how this one fared so far and what it sends, with small bodies behind it. Collective, but waits
  /// for nobody.
  func beginAnnouncement(_ attempt: borrowing Attempt) throws(CrosspointError) {
    var watch = Stopwatch()
    if attempt.hasFailed {
      clearSources()
      clearOutgoing()
      metadataOut.clear()
    }
    layOut()
    let (verdict, flags, size) = (Verdict(attempt.failure), flags, recordBytes)
    for rank in 0..<fabric.rankCount {
      let (record, metadata) = (announcement(to: rank), UnsafeRawBufferPointer(metadataOut[rank]))
      write(to: record.note)
      record.write(
        kind: kind, verdict: verdict, flags: flags.union(carried(to: rank)), sequence: sequence, dispatch: dispatch,
        waitedSeconds: waitedSeconds, bodyBytes: bodyBytes[rank], metadata: metadata, groups: sources[rank])
      let base = announced.base + rank * announcementStride
      let isAway = rank != fabric.rank
      if isAway { SealedRecord.seal(UnsafeMutableRawBufferPointer(start: base, count: size)) }
      var count = size
      if carriesBody[rank] {
        // Most have been encoded there.
        if let body = encoded[rank].baseAddress, body != base + count { memcpy(base + count, body, bodyBytes[rank]) }
        count += bodyBytes[rank]
      }
      if !carried(to: rank).isEmpty {
        UnsafeMutableRawBufferPointer(start: base + count, count: metadata.count).copyMemory(from: metadata)
        count += metadata.count
      }
      announcements[rank] = UnsafeRawBufferPointer(start: base, count: isAway ? count : 0)
      announcementsReceived[rank] = UnsafeMutableRawBufferPointer(
        start: received.base + rank * announcementStride, count: isAway ? size + smallBytes : 0)
    }
    announcementNumber = try fabric.beginExchange(
      send: announcements, receive: announcementsReceived, slack: smallBytes, operation: kind.operation)
    measure.wait += watch.lap()
  }

  /// Hears what the other ranks have announced, and works while they have not. Collective.
  ///
  /// - Throws: what has gone wrong on a rank before, the same on every rank; then nothing of the transfer takes place.
  func finishAnnouncement(meanwhile work: LocalWork, _ attempt: inout Attempt) throws(CrosspointError) {
    var watch = Stopwatch()
    let (size, told) = (recordBytes, attempt.failure)
    var failure = told
    try fabric.finishExchange(
      announcementNumber, arrived: { _ in },
      meanwhile: {
        doSlice(of: work, &failure)
        return hasWork
      })
    for rank in 0..<fabric.rankCount {
      records[rank] =
        rank == fabric.rank
        ? UnsafeRawBufferPointer(announcement(to: rank).words)
        : try SealedRecord.open(
          UnsafeRawBufferPointer(rebasing: announcementsReceived[rank][..<size]), from: rank, to: fabric.rank,
          operation: kind.operation)
    }
    measure.skew = max(0, watch.lap() - measure.meanwhile)
    try agreement.settle(told, operation: kind.operation) { announcement(of: $0).verdict }
    attempt.fail(failure)
    try compareSteps()
    for rank in 0..<fabric.rankCount { try checkSizes(of: rank) }
    conclude()
  }

  /// Decides what travels behind its announcement, and what in messages of its own.
  private func layOut() {
    for rank in 0..<fabric.rankCount {
      let metadata = UnsafeRawBufferPointer(metadataOut[rank])
      let bytes = bodyBytes[rank] + metadata.count
      carriesBody[rank] = route(rank) == .message && bytes > 0 && bytes <= smallBytes
      if rank != fabric.rank {
        measure.wireBytes += bytes + recordBytes
        if tables.reaches(rank) { measure.nodeBytes += bytes }
      }
      if carriesBody[rank] { continue }
      if route(rank) == .message {
        layOutBody(for: rank)
        if metadataBytesPerRow > 0, carried(to: rank).isEmpty { outgoing[blocks(of: rank) + groupCapacity] = metadata }
      } else {
        if route(rank) == .frame, bodyBytes[rank] > 0 { tables.set(.frame, for: rank, encoded[rank]) }
        tables.set(.metadata, for: rank, metadata)
      }
    }
  }

  /// What lies behind the record for a rank: with waves the marks of rows that come later, too, if they are small.
  private func carried(to rank: Int) -> Announcement.Flags {
    if carriesBody[rank] { return .carriesBody }
    let isEarly = isInWaves && kind == .dispatch && route(rank) == .message
    return isEarly && (1..<smallBytes + 1).contains(metadataOut[rank].count) ? .carriesMetadata : []
  }

  /// What this rank says of the whole transfer.
  private var flags: Announcement.Flags {
    var flags: Announcement.Flags = isInWaves ? .inWaves : []
    if outgoing.contains(where: { $0.count > 0 }) { flags.insert(.movesBodies) }
    let others = tables.ranks.dropLast()
    if !readsInPlace, others.contains(where: { route($0) == .direct }) { flags.insert(.writesRows) }
    if hasPlaces || others.isEmpty { flags.insert(.hasPlaces) }
    if others.contains(where: { bodyBytes[$0] + metadataOut[$0].count > 0 }) {
      flags.insert(.sharesMemory)
    }
    return flags
  }

  /// Refuses ranks at different steps. All have heard the same of each other, so all find the same.
  private func compareSteps() throws(CrosspointError) {
    let first = announcement(of: 0)
    for rank in 0..<fabric.rankCount {
      let record = announcement(of: rank)
      func refuse(_ message: String) -> CrosspointError {
        CrosspointError(
          .ranksDisagree, operation: "\(Self.name(first))", rank: rank, argument: "announcement",
          "\(message): every rank must make the same calls in the same order"
        ).agreed
      }
      guard record.kindCode == first.kindCode, record.sequence == first.sequence else {
        throw refuse(
          "rank \(rank) is at \(Self.name(record)) (transfer \(record.sequence)), rank 0 at \(Self.name(first)) "
            + "(transfer \(first.sequence))")
      }
      guard record.dispatch == first.dispatch else {
        throw refuse(
          "rank \(rank) passes the handle of dispatch \(record.dispatch), rank 0 that of dispatch \(first.dispatch)")
      }
    }
  }

  private static func name(_ record: Announcement) -> String {
    TransferKind(rawValue: record.kindCode).map { "\($0.operation)" } ?? "?"
  }

  /// Refuses what no rank of this version sends: a frame larger than its rows could need.
  private func checkSizes(of rank: Int) throws(CrosspointError) {
    let record = announcement(of: rank)
    func refuse(_ message: String) -> CrosspointError {
      CrosspointError(
        .corruptFrame, operation: "\(kind.operation)", rank: rank, argument: "announcement", message)
    }
    guard record.isReadable else { throw refuse("the record from rank \(rank) is of another version") }
    let rows = record.rows
    let most =
      route(rank) == .direct ? rows * rowBytes : codec.maximumBodyBytes(format, rows: rows, groups: record.groups)
    guard (0...most).contains(record.bodyBytes) else {
      throw refuse("\(record.bodyBytes) bytes announced for \(rows) rows, at most \(most) possible")
    }
    let mostMetadata = rows * metadataBytesPerRow
    guard (0...mostMetadata).contains(record.metadataBytes) else {
      throw refuse(
        "\(record.metadataBytes) bytes of metadata announced for \(rows) rows, at most \(mostMetadata) possible")
    }
    let behind = record.bytesBehind
    guard behind.body + behind.metadata <= smallBytes else {
      throw refuse("\(behind.body) bytes and \(behind.metadata) behind a record, at most \(smallBytes) possible")
    }
  }

  /// What all ranks together have said of the transfer.
  private func conclude() {
    // Of the transfer before; a vote at the end of this one will say more.
    measure.slowestRank = (0..<fabric.rankCount).min {
      announcement(of: $0).waitedSeconds < announcement(of: $1).waitedSeconds
    }!
    readsInPlace = tables.ranks.allSatisfy { route($0) != .direct || tables.isOffered(by: $0) }
    var (any, all): (Announcement.Flags, Announcement.Flags) = ([], .hasPlaces)
    for rank in 0..<fabric.rankCount {
      any.formUnion(announcement(of: rank).flags)
      all.formIntersection(announcement(of: rank).flags)
    }
    movesBodies = any.contains(.movesBodies)
    sharesMemory = any.contains(.sharesMemory)
    hasLateRows = any.contains(.writesRows)
    anyInWaves = any.contains(.inWaves)
    settlesPlaces = hasLateRows && all.isEmpty || movesBodies && kind == .dispatch
    isAnnounced = true
  }

  // MARK: - The records

  /// Bytes of a sealed record of this transfer.
  private var recordBytes: Int { SealedRecord.size(of: 4 * announcementWords) }

  /// Bytes of one without a policy's note.
  var leastRecordBytes: Int { SealedRecord.size(of: 4 * (announcementBaseWords + NoteWord.allCases.count)) }

  private var announcementWords: Int { announcementBaseWords + noteWords }

  private var noteWords: Int { note.isEmpty ? 0 : NoteWord.allCases.count + note.count }

  func announcement(to rank: Int) -> Announcement {
    announcement(announced.base + rank * announcementStride)
  }

  func announcement(of rank: Int) -> Announcement {
    announcement(UnsafeMutableRawPointer(mutating: records[rank].baseAddress!))
  }

  private func announcement(_ base: UnsafeMutableRawPointer) -> Announcement {
    let words = UnsafeMutableBufferPointer(start: base.assumingMemoryBound(to: UInt32.self), count: announcementWords)
    return Announcement(words: words, capacity: groupCapacity, noteWords: noteWords)
  }

  /// Rows of each group that a rank has announced.
  func rowsAnnounced(by rank: Int, group: Int) -> Int { announcement(of: rank).rows(group) }

  /// Space for a body, and metadata, behind the record for a rank.
  func spaceBehindRecord(to rank: Int) -> UnsafeMutableRawBufferPointer {
    UnsafeMutableRawBufferPointer(start: announced.base + rank * announcementStride + recordBytes, count: smallBytes)
  }

  /// The body and the metadata behind a record, as far as it carries them.
  func carried(by rank: Int) -> (body: UnsafeRawBufferPointer, metadata: UnsafeRawBufferPointer) {
    let (record, start) = (announcement(of: rank), recordBytes)
    let bytes = UnsafeRawBufferPointer(announcementsReceived[rank])
    let (body, metadata) = record.bytesBehind
    let end = start + body
    return (
      UnsafeRawBufferPointer(rebasing: bytes[start..<end]),
      UnsafeRawBufferPointer(rebasing: bytes[end..<end + metadata])
    )
  }
}
