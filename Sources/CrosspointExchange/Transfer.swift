import CrosspointCompression
import CrosspointCore
import CrosspointFabric
import CrosspointTokens

/// Moves groups of rows between all ranks: announce, agree, move, agree.
///
/// Every transfer of a training step is one ``run(_:format:bytesBefore:failure:checked:rounding:sources:sized:targets:completed:meanwhile:)``:
/// 1. encode one frame per other rank;
/// 2. announce step, sizes, row counts and the frame's header to every rank;
/// 3. check the announcements, allocate, copy the rows that stay on this rank (never coded), and agree that every rank is
///    able to go on;
/// 4. exchange the bodies of the frames, decoding each as it arrives and doing the caller's work while none does;
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
    var highRows = 0
    var lowRows = 0
    var encode = 0.0
    var skew = 0.0
    var wait = 0.0
    var decode = 0.0
    var meanwhile = 0.0
    var slowestRank = 0
  }

  /// Bytes of a group, on average, from which rows travel as a block per group.
  static let worthBlock = 1 << 16

  var measure = Measure()
  let fabric: any Fabric
  let codec: RowCodec
  let packing: Packing
  let pool: BufferPool
  let rowBytes: Int
  /// The most groups of any frame.
  let groupCapacity: Int
  /// Bytes that may travel beside each row; none: nothing ever does.
  let sideBytesPerRow: Int
  /// What is to travel beside the rows of the next run, and what did so in the last, to and from every rank, this one
  /// included.
  var sideOut: RankBlocks
  var sideIn: RankBlocks
  /// Words of an announcement without a note.
  let announcementBaseWords: Int
  /// What this rank tells every other with its announcements, as many floats on every rank; the first becomes the bytes
  /// that it sends. Set before a run.
  var note = UnsafeMutableBufferPointer<Float>(start: nil, count: 0)
  private let announced: BufferPool.Buffer
  private let received: BufferPool.Buffer
  private let announcementStride: Int
  private let agreement: Agreement
  private var sequence: UInt64 = 0
  // Where announcements lie.
  private var announcements: [UnsafeRawBufferPointer]
  private var announcementsReceived: [UnsafeMutableRawBufferPointer]
  // Scratch that keeps its capacity from call to call.
  var sources: [RowSource] = []
  var targets: [RowTarget] = []
  var outgoing: [UnsafeRawBufferPointer]
  var incoming: [UnsafeMutableRawBufferPointer]
  var bodyBytes: [Int]
  /// Whether a peer's body arrives where its rows belong.
  var arrivesInPlace: [Bool]

  init(
    fabric: any Fabric, layout: ExpertLayout, sideBytesPerRow: Int, codec: RowCodec, packing: Packing,
    noteCapacity: Int, agreement: Agreement, pool: BufferPool
  ) throws(CrosspointError) {
    self.fabric = fabric
    self.codec = codec
    self.packing = packing
    self.pool = pool
    let ranks = fabric.rankCount
    rowBytes = layout.hidden * MemoryLayout<Float>.stride
    groupCapacity = max(1, layout.mostExperts(rankCount: ranks))
    self.sideBytesPerRow = sideBytesPerRow
    sideOut = RankBlocks(ranks: ranks, pool: pool)
    sideIn = RankBlocks(ranks: ranks, pool: pool)
    announcementBaseWords = Announcement.words(
      groups: groupCapacity, headerBytes: RowCodec.headerBytes(groups: groupCapacity))
    announcementStride = announcementBaseWords + noteCapacity
    let size = announcementStride * 4
    let announced = try pool.lease(bytes: ranks * size)
    let received = try pool.lease(bytes: ranks * size)
    self.announced = announced
    self.received = received
    announcements = Array(repeating: UnsafeRawBufferPointer(start: nil, count: 0), count: ranks)
    announcementsReceived = Array(repeating: UnsafeMutableRawBufferPointer(start: nil, count: 0), count: ranks)
    self.agreement = agreement
    let blocks = ranks * (groupCapacity + (sideBytesPerRow > 0 ? 1 : 0))
    outgoing = Array(repeating: UnsafeRawBufferPointer(start: nil, count: 0), count: blocks)
    incoming = Array(repeating: UnsafeMutableRawBufferPointer(start: nil, count: 0), count: blocks)
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
  ///   - bytesBefore: bytes that this rank has sent for it already.
  ///   - failure: what already went wrong on this rank; it is thrown on every rank.
  ///   - checked: the batch that the rows come from, if they must be finite; each row is looked at just before it is read
  ///     for the transfer.
  ///   - rounding: how rows are rounded.
  ///   - sources: appends the groups of rows for a peer.
  ///   - sized: called once every peer's row counts are known (`rows(source, group)`), before ``targets`` is asked.
  ///   - targets: appends where a peer's groups of rows go.
  ///   - completed: called once all has arrived intact, also ``sideIn``, before ranks agree that it did.
  ///   - work: what to do while bodies are under way.
  func run(
    _ kind: LayerStatistics.TransferKind, format: WireFormat, bytesBefore: Int = 0, failure: CrosspointError?,
    checked: CheckedBatch? = nil, rounding: RowRounding,
    sources collectSources: (_ peer: Int, _ groups: inout [RowSource]) -> Void,
    sized: (_ rows: (_ source: Int, _ group: Int) -> Int) throws(CrosspointError) -> Void = {
      _ throws(CrosspointError) in
    },
    targets collectTargets: (_ peer: Int, _ groups: inout [RowTarget]) -> Void,
    completed: () throws(CrosspointError) -> Void, meanwhile work: LocalWork
  ) throws(CrosspointError) {
    measure = Measure()
    measure.wireBytes = bytesBefore
    sequence += 1
    // What travels beside the rows is this run's, however it ends.
    defer { sideOut.clear() }
    var failure = failure
    var watch = Stopwatch()

    var frames: BufferPool.Buffer?
    defer { if let frames { pool.release(frames) } }
    if failure == nil {
      do throws(CrosspointError) {
        frames = try encode(kind, format, rounding, checked != nil, collectSources)
      } catch {
        failure = checked?.named(error, kind, rank: fabric.rank) ?? error
      }
    }
    if failure != nil {
      clearOutgoing()
      sideOut.clear()
    }
    sendSide()
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
        try placeSide()
        try copyOwn(checked != nil, collectSources, collectTargets)
      } catch {
        failure = checked?.named(error, kind, rank: fabric.rank) ?? error
      }
    }
    let copySeconds = watch.lap()
    measure.decode = copySeconds
    try agreement.settle(failure, operation: kind.operation)

    failure = try exchangeBodies(kind, collectTargets, meanwhile: work)
    var completedWatch = Stopwatch()
    if failure == nil {
      do throws(CrosspointError) { try completed() } catch { failure = error }
    }
    measure.decode += completedWatch.lap()
    measure.wait = max(0, watch.lap() - (measure.decode - copySeconds) - measure.meanwhile)
    try agreement.settle(failure, waitSeconds: measure.skew, operation: kind.operation)
    measure.slowestRank = agreement.slowestRank
  }

  /// Exchanges announcements.
  private func announce(
    _ kind: LayerStatistics.TransferKind, failed: Bool, _ collectSources: (Int, inout [RowSource]) -> Void
  ) throws(CrosspointError) {
    if note.count > 0 { note[0] = Float(measure.wireBytes) }
    for peer in 0..<fabric.rankCount {
      sources.removeAll(keepingCapacity: true)
      if !failed { collectSources(peer, &sources) }
      let record = announcement(to: peer)
      _ = record.note.update(fromContentsOf: note)
      announcements[peer] = UnsafeRawBufferPointer(record.words)
      announcementsReceived[peer] = UnsafeMutableRawBufferPointer(announcement(of: peer).words)
      record.write(
        kind: kind, sequence: sequence, bodyBytes: bodyBytes[peer], side: UnsafeRawBufferPointer(sideOut[peer]),
        rows: { sources[$0].rows }, groups: sources.count)
    }
    try fabric.exchange(send: announcements, receive: announcementsReceived, operation: kind.operation)
  }

  /// Moves the bodies and does all of the work. What goes wrong on this rank ends the work and is returned.
  private func exchangeBodies(
    _ kind: LayerStatistics.TransferKind, _ collectTargets: (Int, inout [RowTarget]) -> Void, meanwhile work: LocalWork
  ) throws(CrosspointError) -> CrosspointError? {
    var failure: CrosspointError?
    var hasWork = true
    try fabric.exchange(
      send: outgoing, receive: incoming, operation: kind.operation,
      arrived: { peer in
        var watch = Stopwatch()
        do throws(CrosspointError) { try take(kind, from: peer, collectTargets) } catch {
          // A frame that does not decode is its sender's; anything else is this rank's own.
          let isFrame = error.code == .corruptFrame || error.code == .truncatedFrame
          failure = failure ?? (isFrame ? error.on(rank: peer) : error)
        }
        measure.decode += watch.lap()
      },
      meanwhile: {
        slice(of: work, &hasWork, &failure)
        return hasWork
      })
    while hasWork { slice(of: work, &hasWork, &failure) }
    return failure
  }

  /// Does a slice of the work, unless something has gone wrong, which ends it.
  private func slice(of work: LocalWork, _ hasWork: inout Bool, _ failure: inout CrosspointError?) {
    hasWork = false
    guard failure == nil else { return }
    var watch = Stopwatch()
    do throws(CrosspointError) { hasWork = try work() } catch { failure = error }
    measure.meanwhile += watch.lap()
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
      guard (0...most).contains(record.bodyBytes) else {
        throw refuse(.corruptFrame, "\(record.bodyBytes) bytes announced for \(rows) rows, at most \(most) possible")
      }
      let mostBeside = rows * sideBytesPerRow
      guard (0...mostBeside).contains(record.sideBytes) else {
        throw refuse(
          .corruptFrame,
          "\(record.sideBytes) bytes announced beside \(rows) rows, at most \(mostBeside) possible")
      }
    }
  }

  // MARK: - Views

  func gather(_ peer: Int, _ collect: (Int, inout [RowSource]) -> Void) {
    sources.removeAll(keepingCapacity: true)
    collect(peer, &sources)
  }

  func gather(_ peer: Int, _ collect: (Int, inout [RowTarget]) -> Void) {
    targets.removeAll(keepingCapacity: true)
    collect(peer, &targets)
  }

  /// Nothing to send to anybody.
  func clearOutgoing() {
    for block in outgoing.indices { outgoing[block] = UnsafeRawBufferPointer(start: nil, count: 0) }
    for peer in bodyBytes.indices {
      bodyBytes[peer] = 0
      let header = announcement(to: peer).header
      header.initializeMemory(as: UInt8.self, repeating: 0)
    }
  }

  /// Where a rank's blocks begin in an exchange of bodies.
  func blocks(of peer: Int) -> Int { peer * (outgoing.count / fabric.rankCount) }

  /// Words of an announcement of the present run.
  var announcementWords: Int { announcementBaseWords + note.count }

  func announcement(to peer: Int) -> Announcement { announcement(announced, peer) }
  func announcement(of peer: Int) -> Announcement { announcement(received, peer) }

  private func announcement(_ buffer: BufferPool.Buffer, _ peer: Int) -> Announcement {
    let base = buffer.base.assumingMemoryBound(to: UInt32.self)
    let words = UnsafeMutableBufferPointer(start: base + peer * announcementStride, count: announcementWords)
    return Announcement(words: words, capacity: groupCapacity, noteWords: note.count)
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
