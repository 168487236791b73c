import CrosspointCompression
import CrosspointCore
import CrosspointFabric
import CrosspointTokens

#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// Moves groups of rows between all ranks: announce, agree, move, agree.
///
/// Every transfer of a training step is one ``run(_:format:failure:checked:sources:sized:targets:)``:
/// 1. encode one frame per other rank;
/// 2. announce step, sizes, row counts and the frame's header to every rank;
/// 3. check the announcements, allocate, copy the rows that stay on this rank (never coded), and agree that every rank is
///    able to go on;
/// 4. exchange the bodies of the frames, decoding each as it arrives;
/// 5. agree that every frame was intact.
///
/// Plain fp32 rows are not coded either. Large groups of them travel as a block each, out of the memory where they lie
/// unless they must be gathered, into the memory where they belong; both ends only sum them.
///
/// Buffers come from the pool: in the steady state nothing is allocated.
final class Transfer {
  /// What the last run measured.
  struct Measure {
    var wireBytes = 0
    var localBytes = 0
    var encode = 0.0
    var skew = 0.0
    var wait = 0.0
    var decode = 0.0
    var slowestRank = 0
  }

  /// Bytes of a group, on average, from which rows travel as a block per group.
  private static let worthBlock = 1 << 16

  private(set) var measure = Measure()
  private let fabric: any Fabric
  private let codec: RowCodec
  private let packing: Packing
  private let pool: BufferPool
  private let rowBytes: Int
  /// The most groups of any frame: blocks that each rank has in an exchange of bodies.
  private let groupCapacity: Int
  private let announcementWords: Int
  private let announced: BufferPool.Buffer
  private let received: BufferPool.Buffer
  private let agreement: Agreement
  private var sequence: UInt64 = 0
  // Where announcements lie, fixed for life.
  private let announcements: [UnsafeRawBufferPointer]
  private let announcementsReceived: [UnsafeMutableRawBufferPointer]
  // Scratch that keeps its capacity from call to call.
  private var sources: [RowSource] = []
  private var targets: [RowTarget] = []
  private var outgoing: [UnsafeRawBufferPointer]
  private var incoming: [UnsafeMutableRawBufferPointer]
  private var bodyBytes: [Int]
  /// Whether a peer's body arrives where its rows belong.
  private var arrivesInPlace: [Bool]

  init(
    fabric: any Fabric, layout: ExpertLayout, codec: RowCodec, packing: Packing, agreement: Agreement, pool: BufferPool
  ) throws(CrosspointError) {
    self.fabric = fabric
    self.codec = codec
    self.packing = packing
    self.pool = pool
    let ranks = fabric.rankCount
    rowBytes = layout.hidden * MemoryLayout<Float>.stride
    groupCapacity = max(1, layout.experts(of: 0, rankCount: ranks).count)
    announcementWords = Announcement.words(
      groups: groupCapacity, headerBytes: RowCodec.headerBytes(groups: groupCapacity))
    let size = announcementWords * 4
    let announced = try pool.lease(bytes: ranks * size)
    let received = try pool.lease(bytes: ranks * size)
    self.announced = announced
    self.received = received
    announcements = (0..<ranks).map { UnsafeRawBufferPointer(start: announced.base + $0 * size, count: size) }
    announcementsReceived = (0..<ranks).map {
      UnsafeMutableRawBufferPointer(start: received.base + $0 * size, count: size)
    }
    self.agreement = agreement
    outgoing = Array(repeating: UnsafeRawBufferPointer(start: nil, count: 0), count: ranks * groupCapacity)
    incoming = Array(repeating: UnsafeMutableRawBufferPointer(start: nil, count: 0), count: ranks * groupCapacity)
    bodyBytes = Array(repeating: 0, count: ranks)
    arrivesInPlace = Array(repeating: false, count: ranks)
  }

  deinit {
    pool.release(announced)
    pool.release(received)
  }

  /// One collective transfer.
  ///
  /// - Parameters:
  ///   - failure: what already went wrong on this rank; it is thrown on every rank.
  ///   - checked: the batch that the rows come from, if they must be finite; each row is looked at just before it is read
  ///     for the transfer.
  ///   - sources: appends the groups of rows for a peer.
  ///   - sized: called once every peer's row counts are known (`rows(source, group)`), before ``targets`` is asked.
  ///   - targets: appends where a peer's groups of rows go.
  func run(
    _ kind: LayerStatistics.TransferKind, format: WireFormat, failure: CrosspointError?, checked: CheckedBatch? = nil,
    sources collectSources: (_ peer: Int, _ groups: inout [RowSource]) -> Void,
    sized: (_ rows: (_ source: Int, _ group: Int) -> Int) throws(CrosspointError) -> Void = {
      _ throws(CrosspointError) in
    },
    targets collectTargets: (_ peer: Int, _ groups: inout [RowTarget]) -> Void
  ) throws(CrosspointError) {
    measure = Measure()
    sequence += 1
    var failure = failure
    var watch = Stopwatch()

    var frames: BufferPool.Buffer?
    defer { if let frames { pool.release(frames) } }
    if failure == nil {
      do throws(CrosspointError) {
        frames = try encode(format, checked != nil, collectSources)
      } catch {
        failure = checked?.named(error, kind, rank: fabric.rank) ?? error
      }
    }
    if failure != nil { clearOutgoing() }
    measure.encode = watch.lap()

    try announce(kind, failed: failure != nil, collectSources)
    measure.skew = watch.lap()

    var staging: BufferPool.Buffer?
    defer { if let staging { pool.release(staging) } }
    if failure == nil {
      do throws(CrosspointError) {
        try check(kind, format)
        try sized { source, group in announcement(of: source).rows(group) }
        staging = try placeIncoming(format, collectTargets)
        try copyOwn(checked != nil, collectSources, collectTargets)
      } catch {
        failure = checked?.named(error, kind, rank: fabric.rank) ?? error
      }
    }
    let copySeconds = watch.lap()
    var decodeSeconds = copySeconds
    try agreement.settle(failure, operation: kind.operation)

    try fabric.exchange(send: outgoing, receive: incoming, operation: kind.operation) { peer in
      var decodeWatch = Stopwatch()
      do throws(CrosspointError) { try take(from: peer, collectTargets) } catch {
        // A frame that does not decode is its sender's; anything else is this rank's own.
        let isFrame = error.code == .corruptFrame || error.code == .truncatedFrame
        failure = failure ?? (isFrame ? error.on(rank: peer) : error)
      }
      decodeSeconds += decodeWatch.lap()
    }
    measure.decode = decodeSeconds
    measure.wait = max(0, watch.lap() - decodeSeconds + copySeconds)
    try agreement.settle(failure, waitSeconds: measure.skew, operation: kind.operation)
    measure.slowestRank = agreement.slowestRank
  }

  // MARK: - Steps

  /// Encodes one frame per other rank that gets rows: headers into the announcements, bodies side by side in one buffer,
  /// except those that can be sent from where their rows lie.
  private func encode(
    _ format: WireFormat, _ requiringFinite: Bool, _ collectSources: (Int, inout [RowSource]) -> Void
  ) throws(CrosspointError) -> BufferPool.Buffer {
    clearOutgoing()
    var capacity = 0
    for peer in 0..<fabric.rankCount where peer != fabric.rank {
      gather(peer, collectSources)
      if !canSendInPlace(format) {
        capacity += codec.maximumBodyBytes(format, rows: sources.rowCount, groups: sources.count)
      }
    }
    let bodies = try pool.lease(bytes: capacity)
    do throws(CrosspointError) {
      var offset = 0
      for peer in 0..<fabric.rankCount where peer != fabric.rank {
        gather(peer, collectSources)
        guard sources.rowCount > 0 else { continue }
        let header = announcement(to: peer).header
        let blocks = peer * groupCapacity
        if canSendInPlace(format) {
          bodyBytes[peer] = try codec.seal(sources, requiringFinite: requiringFinite, header: header)
          for (group, source) in sources.enumerated() {
            outgoing[blocks + group] = UnsafeRawBufferPointer(start: source.base, count: source.rows * rowBytes)
          }
        } else {
          let room = UnsafeMutableRawBufferPointer(start: bodies.base + offset, count: capacity - offset)
          let size = try codec.encode(
            sources, as: format, packing: packing, requiringFinite: requiringFinite, header: header, body: room)
          bodyBytes[peer] = size
          outgoing[blocks] = UnsafeRawBufferPointer(start: room.baseAddress, count: size)
          if travelsByGroup(format, rows: sources.rowCount, groups: sources.count, bodyBytes: size) {
            var start = 0
            for (group, source) in sources.enumerated() {
              outgoing[blocks + group] = UnsafeRawBufferPointer(rebasing: room[start..<start + source.rows * rowBytes])
              start += source.rows * rowBytes
            }
          }
          offset += size
        }
      }
      measure.wireBytes = bodyBytes.reduce(0, +) + (fabric.rankCount - 1) * announcementWords * 4
    } catch {
      pool.release(bodies)
      throw error
    }
    return bodies
  }

  /// Whether the rows of a body travel as one block per group: plain rows, enough of them to be worth several messages.
  /// Both ends decide it from what is announced.
  private func travelsByGroup(_ format: WireFormat, rows: Int, groups: Int, bodyBytes: Int) -> Bool {
    format == .fp32 && bodyBytes == rows * rowBytes && bodyBytes >= groups * Self.worthBlock
  }

  /// Whether the gathered sources form a body as they lie.
  private func canSendInPlace(_ format: WireFormat) -> Bool {
    let rows = sources.rowCount
    return packing == .none && sources.allSatisfy { $0.indices == nil }
      && travelsByGroup(format, rows: rows, groups: sources.count, bodyBytes: rows * rowBytes)
  }

  /// Exchanges announcements.
  private func announce(
    _ kind: LayerStatistics.TransferKind, failed: Bool, _ collectSources: (Int, inout [RowSource]) -> Void
  ) throws(CrosspointError) {
    for peer in 0..<fabric.rankCount {
      sources.removeAll(keepingCapacity: true)
      if !failed { collectSources(peer, &sources) }
      announcement(to: peer).write(
        kind: kind, sequence: sequence, bodyBytes: bodyBytes[peer], rows: { sources[$0].rows },
        groups: sources.count)
    }
    try fabric.exchange(send: announcements, receive: announcementsReceived, operation: kind.operation)
  }

  /// Refuses what cannot be: another step, a torn record, a frame larger than its rows could need.
  private func check(_ kind: LayerStatistics.TransferKind, _ format: WireFormat) throws(CrosspointError) {
    for peer in 0..<fabric.rankCount {
      let record = announcement(of: peer)
      func refuse(_ code: CrosspointError.Code, _ message: String) -> CrosspointError {
        CrosspointError(code, operation: "\(kind.operation)", rank: peer, argument: "announcement", message)
      }
      guard record.isIntact else { throw refuse(.corruptFrame, "the record from rank \(peer) is damaged") }
      guard record.kindCode == kind.rawValue, record.sequence == sequence else {
        let theirs = LayerStatistics.TransferKind(rawValue: record.kindCode).map { "\($0.operation)" } ?? "?"
        throw refuse(
          .ranksDisagree,
          "rank \(peer) is at \(theirs) (transfer \(record.sequence)), rank \(fabric.rank) at \(kind.operation) "
            + "(transfer \(sequence)): every rank must make the same calls in the same order")
      }
      let rows = record.rows
      let most = codec.maximumBodyBytes(format, rows: rows, groups: record.groups)
      guard record.bodyBytes <= most else {
        throw refuse(.corruptFrame, "\(record.bodyBytes) bytes announced for \(rows) rows, at most \(most) possible")
      }
    }
  }

  /// Decides where each body arrives: where its rows belong, if they travel as they are, or in one buffer for all others.
  private func placeIncoming(
    _ format: WireFormat, _ collectTargets: (Int, inout [RowTarget]) -> Void
  ) throws(CrosspointError) -> BufferPool.Buffer {
    var staged = 0
    for peer in 0..<fabric.rankCount {
      let blocks = peer * groupCapacity
      for group in 0..<groupCapacity { incoming[blocks + group] = UnsafeMutableRawBufferPointer(start: nil, count: 0) }
      arrivesInPlace[peer] = false
      let size = announcement(of: peer).bodyBytes
      guard peer != fabric.rank, size > 0 else { continue }
      gather(peer, collectTargets)
      let rows = targets.rowCount
      if travelsByGroup(format, rows: rows, groups: targets.count, bodyBytes: size) {
        for (group, target) in targets.enumerated() {
          incoming[blocks + group] = UnsafeMutableRawBufferPointer(start: target.base, count: target.rows * rowBytes)
        }
        arrivesInPlace[peer] = true
      } else if format == .fp32, let run = targets.run(hidden: codec.hidden), run.count == size {
        incoming[blocks] = run
        arrivesInPlace[peer] = true
      } else {
        staged += size
      }
    }
    let staging = try pool.lease(bytes: staged)
    var offset = 0
    for peer in 0..<fabric.rankCount where peer != fabric.rank && !arrivesInPlace[peer] {
      let size = announcement(of: peer).bodyBytes
      incoming[peer * groupCapacity] = UnsafeMutableRawBufferPointer(start: staging.base + offset, count: size)
      offset += size
    }
    return staging
  }

  /// Copies this rank's rows for itself.
  private func copyOwn(
    _ requiringFinite: Bool, _ collectSources: (Int, inout [RowSource]) -> Void,
    _ collectTargets: (Int, inout [RowTarget]) -> Void
  ) throws(CrosspointError) {
    gather(fabric.rank, collectSources)
    gather(fabric.rank, collectTargets)
    measure.localBytes = sources.rowCount * rowBytes
    for (source, target) in zip(sources, targets) {
      for index in 0..<source.rows {
        let row = source.row(index, hidden: codec.hidden)
        if requiringFinite { try codec.requireFinite(row) }
        memcpy(target.base + index * codec.hidden, row, rowBytes)
      }
    }
  }

  /// Decodes a peer's frame.
  private func take(
    from peer: Int, _ collectTargets: (Int, inout [RowTarget]) -> Void
  ) throws(CrosspointError) {
    guard peer != fabric.rank else { return }
    gather(peer, collectTargets)
    let body = UnsafeRawBufferPointer(incoming[peer * groupCapacity])
    guard arrivesInPlace[peer] || body.count > 0 || targets.rowCount > 0 else { return }
    let header = UnsafeRawBufferPointer(
      rebasing: announcement(of: peer).header[..<RowCodec.headerBytes(groups: targets.count)])
    if arrivesInPlace[peer] {
      try codec.verify(header: header, in: targets)
    } else {
      try codec.decode(header: header, body: body, into: targets)
    }
  }

  // MARK: - Views

  private func gather(_ peer: Int, _ collect: (Int, inout [RowSource]) -> Void) {
    sources.removeAll(keepingCapacity: true)
    collect(peer, &sources)
  }

  private func gather(_ peer: Int, _ collect: (Int, inout [RowTarget]) -> Void) {
    targets.removeAll(keepingCapacity: true)
    collect(peer, &targets)
  }

  /// Nothing to send to anybody.
  private func clearOutgoing() {
    for block in outgoing.indices { outgoing[block] = UnsafeRawBufferPointer(start: nil, count: 0) }
    for peer in bodyBytes.indices {
      bodyBytes[peer] = 0
      let header = announcement(to: peer).header
      header.initializeMemory(as: UInt8.self, repeating: 0)
    }
  }

  private func announcement(to peer: Int) -> Announcement { announcement(announced, peer) }
  private func announcement(of peer: Int) -> Announcement { announcement(received, peer) }

  private func announcement(_ buffer: BufferPool.Buffer, _ peer: Int) -> Announcement {
    let base = buffer.base.assumingMemoryBound(to: UInt32.self)
    let words = UnsafeMutableBufferPointer(start: base + peer * announcementWords, count: announcementWords)
    return Announcement(words: words, capacity: groupCapacity)
  }
}

extension LayerStatistics.TransferKind {
  /// The public call, for messages.
  var operation: StaticString {
    switch self {
    case .dispatch: "dispatch"
    case .combine: "combine"
    case .combineBackward: "combineBackward"
    case .dispatchBackward: "dispatchBackward"
    }
  }
}

extension [RowSource] {
  fileprivate var rowCount: Int { reduce(0) { $0 + $1.rows } }
}

extension [RowTarget] {
  fileprivate var rowCount: Int { reduce(0) { $0 + $1.rows } }

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
