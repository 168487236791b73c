import CrosspointCompression
import CrosspointCore
import CrosspointFabric
import CrosspointTokens

/// Moves groups of rows between all ranks, in phases that its caller runs in order.
///
/// | phase | collective | |
/// |---|---|---|
/// | ``begin(_:)`` | | the caller then fills ``sources`` |
/// | ``encode(as:rounding:)`` | | a frame for every rank that gets one |
/// | ``announce(_:)`` | yes | step, sizes, row counts and the frame's header, to every rank; all are checked |
/// | ``place()`` | | the caller has filled ``targets``: memory for what will arrive; ranks of the node are told where |
/// | ``settle(_:)`` | yes | every rank can go on, or all throw |
/// | ``move(writing:meanwhile:_:)`` | yes | rows are written or decoded, bodies travel, the caller's work is done |
/// | ``settle(_:)`` | yes | every row is there, or all throw |
/// | ``end()`` | | memory goes back |
///
/// How rows reach a rank is its ``Route``.
///
/// Buffers come from the pool: in the steady state nothing is allocated.
final class Transfer {
  /// What a transfer measured.
  struct Measure {
    var wireBytes = 0
    var nodeBytes = 0
    var localBytes = 0
    var encode = 0.0
    var skew = 0.0
    var wait = 0.0
    var decode = 0.0
    var meanwhile = 0.0
    var slowestRank = 0
    var fidelity = Fidelity()
  }

  /// How rows reach a rank, and come from it.
  enum Route {
    /// Another node: a frame in a message. Large groups of plain fp32 rows travel as a block each, out of the memory where
    /// they lie unless they must be gathered, into the memory where they belong; both ends only sum them.
    case message
    /// The same node, coded: the receiver reads the frame in the sender's memory.
    case frame
    /// The same node, plain fp32 or not to be coded, or this rank itself: rows are written once, where they belong, or read where they lie.
    /// Memory is no network: they have no checksum.
    case direct
  }

  /// What the first floats of a note are: bytes sent, and the logarithms to base 2 of the two sums of squares of the
  /// ``Fidelity``, minus infinity where nothing was compared.
  enum NoteWord: Int, CaseIterable {
    case bytes, lost, whole
  }

  /// Bytes of a group, on average, from which rows travel as a block per group.
  static let blockBytes = 1 << 16

  let fabric: any Fabric
  let codec: RowCodec
  let pool: BufferPool
  let rowBytes: Int
  /// The most groups of any frame.
  let groupCapacity: Int
  /// The most metadata that may travel with each row; none: nothing ever does.
  let metadataBytesPerRow: Int
  let agreement: Agreement
  /// Whether rows for ranks of this node are never coded.
  private let isPlainWithinNode: Bool
  /// What the ranks of this node tell each other.
  let tables: NodeTables

  // The transfer under way.
  private(set) var kind = TransferKind.dispatch
  private var sequence: UInt64 = 0
  var format = WireFormat.fp32
  /// The batch that the rows come from, if they must be finite; each row is looked at just before it is read. Without, NaN and
  /// infinity travel; what is beyond the format's bound never does.
  var checked: CheckedBatch?
  var measure = Measure()
  /// Groups of rows to every rank, in the order of its destinations.
  var sources: [[RowSource]]
  /// Where the groups of rows from every rank go.
  var targets: [[RowTarget]]
  /// Metadata to and from every rank, this one included; the receiver's is valid until ``end()``.
  var metadataOut: RankBlocks
  var metadataIn: [UnsafeRawBufferPointer]
  /// Rows that all groups to ranks of this node are part of, if they stay unchanged until the last vote: then those ranks may
  /// read them where they lie. Set before ``encode(as:rounding:)``.
  var offered: (base: UnsafePointer<Float>, count: Int)?
  /// Whether rows from ranks with a direct route are read where they lie; the same on all of them. Known when announced.
  private(set) var readsInPlace = false
  /// For ranks with a direct route, where their groups of rows lie that are read, or where those belong that are written.
  var nodeRows: [[RowTarget]]
  /// What a policy tells every other rank with its announcements, as many floats on every rank, behind what the transfer
  /// itself finds out, see ``NoteWord``; none: neither is told. Set before ``encode(as:rounding:)``.
  var note = UnsafeMutableBufferPointer<Float>(start: nil, count: 0)

  // Its memory.
  var frames = BufferPool.Buffer.empty
  var staging = BufferPool.Buffer.empty
  private let announced: BufferPool.Buffer
  private let received: BufferPool.Buffer
  /// Words of an announcement without a note, and with the largest.
  let announcementBaseWords: Int
  private let announcementStride: Int
  private var announcements: [UnsafeRawBufferPointer]
  private var announcementsReceived: [UnsafeMutableRawBufferPointer]
  var outgoing: [UnsafeRawBufferPointer]
  var incoming: [UnsafeMutableRawBufferPointer]
  var bodyBytes: [Int]
  /// The bodies of frames that were encoded for other ranks, and of those from others that do not arrive in place.
  var encoded: [UnsafeRawBufferPointer]
  var bodies: [UnsafeRawBufferPointer]
  /// Whether a rank's body arrives where its rows belong.
  var arrivesInPlace: [Bool]
  /// Where a frame of this rank's own is decoded.
  var ownTargets: [RowTarget] = []

  init(
    fabric: any Fabric, layout: ExpertLayout, metadataBytesPerRow: Int, codec: RowCodec,
    isPlainWithinNode: Bool, noteCapacity: Int, agreement: Agreement, pool: BufferPool
  ) throws(CrosspointError) {
    self.fabric = fabric
    self.codec = codec
    self.pool = pool
    self.agreement = agreement
    self.isPlainWithinNode = isPlainWithinNode
    self.metadataBytesPerRow = metadataBytesPerRow
    let ranks = fabric.rankCount
    rowBytes = layout.hidden * MemoryLayout<Float>.stride
    groupCapacity = max(1, layout.mostExperts(rankCount: ranks))
    metadataOut = RankBlocks(ranks: ranks, pool: pool)
    metadataIn = Array(repeating: UnsafeRawBufferPointer(start: nil, count: 0), count: ranks)
    (encoded, bodies) = (metadataIn, metadataIn)
    nodeRows = Array(repeating: [], count: ranks)
    tables = try NodeTables(fabric: fabric, groups: groupCapacity, pool: pool)
    announcementBaseWords = Announcement.words(
      groups: groupCapacity, headerBytes: RowCodec.headerBytes(groups: groupCapacity))
    announcementStride = announcementBaseWords + NoteWord.allCases.count + noteCapacity
    let announced = try pool.lease(bytes: ranks * announcementStride * 4)
    let received = try pool.lease(bytes: ranks * announcementStride * 4)
    self.announced = announced
    self.received = received
    announcements = Array(repeating: UnsafeRawBufferPointer(start: nil, count: 0), count: ranks)
    announcementsReceived = Array(repeating: UnsafeMutableRawBufferPointer(start: nil, count: 0), count: ranks)
    let blocks = ranks * (groupCapacity + (metadataBytesPerRow > 0 ? 1 : 0))
    outgoing = Array(repeating: UnsafeRawBufferPointer(start: nil, count: 0), count: blocks)
    incoming = Array(repeating: UnsafeMutableRawBufferPointer(start: nil, count: 0), count: blocks)
    bodyBytes = Array(repeating: 0, count: ranks)
    arrivesInPlace = Array(repeating: false, count: ranks)
    sources = Array(repeating: [], count: ranks)
    targets = Array(repeating: [], count: ranks)
  }

  deinit {
    end()
    pool.release(announced)
    pool.release(received)
  }

  /// Begins the next transfer, with nothing to send.
  func begin(_ kind: TransferKind) {
    self.kind = kind
    format = .fp32
    sequence += 1
    measure = Measure()
    note = UnsafeMutableBufferPointer(start: nil, count: 0)
    offered = nil
    readsInPlace = false
    tables.offer(nil)
    metadataOut.clear()
    clearSources()
    for rank in targets.indices { targets[rank].removeAll(keepingCapacity: true) }
    clearOutgoing()
  }

  /// Forgets the groups to send.
  func clearSources() {
    for rank in sources.indices { sources[rank].removeAll(keepingCapacity: true) }
  }

  /// Gives the memory of a transfer back, however it ended.
  func end() {
    pool.release(frames)
    pool.release(staging)
    (frames, staging) = (.empty, .empty)
    checked = nil
  }

  /// Every rank tells every other what it sends, and looks at what it is told. Collective.
  ///
  /// A rank whose attempt has failed announces nothing.
  func announce(_ attempt: inout Attempt) throws(CrosspointError) {
    var watch = Stopwatch()
    if attempt.hasFailed {
      clearSources()
      clearOutgoing()
      metadataOut.clear()
    }
    addMetadata()
    for rank in 0..<fabric.rankCount {
      let record = announcement(to: rank)
      write(to: record.note)
      announcements[rank] = UnsafeRawBufferPointer(record.words)
      announcementsReceived[rank] = UnsafeMutableRawBufferPointer(announcement(of: rank).words)
      record.write(
        kind: kind, sequence: sequence, bodyBytes: bodyBytes[rank],
        metadata: UnsafeRawBufferPointer(metadataOut[rank]), groups: sources[rank])
    }
    try fabric.exchange(send: announcements, receive: announcementsReceived, operation: kind.operation)
    attempt { () throws(CrosspointError) in
      try checkAnnouncements()
      readsInPlace = tables.ranks.allSatisfy { route($0) != .direct || tables.isOffered(by: $0) }
    }
    measure.skew = watch.lap()
  }

  /// Throws on every rank if any rank's attempt has failed. Collective.
  func settle(_ attempt: borrowing Attempt) throws(CrosspointError) {
    var watch = Stopwatch()
    try agreement.settle(attempt.failure, waitSeconds: measure.skew, operation: kind.operation)
    measure.wait += watch.lap()
    measure.slowestRank = agreement.slowestRank
  }

  /// Refuses what cannot be: another step, a torn record, a frame larger than its rows could need.
  private func checkAnnouncements() throws(CrosspointError) {
    for rank in 0..<fabric.rankCount {
      let record = announcement(of: rank)
      func refuse(_ code: CrosspointError.Code, _ message: String) -> CrosspointError {
        CrosspointError(code, operation: "\(kind.operation)", rank: rank, argument: "announcement", message)
      }
      guard record.isIntact else { throw refuse(.corruptFrame, "the record from rank \(rank) is damaged") }
      guard record.kindCode == kind.rawValue, record.sequence == sequence else {
        let theirs = TransferKind(rawValue: record.kindCode).map { "\($0.operation)" } ?? "?"
        throw refuse(
          .ranksDisagree,
          "rank \(rank) is at \(theirs) (transfer \(record.sequence)), rank \(fabric.rank) at \(kind.operation) "
            + "(transfer \(sequence)): every rank must make the same calls in the same order")
      }
      let rows = record.rows
      let most =
        route(rank) == .direct ? rows * rowBytes : codec.maximumBodyBytes(format, rows: rows, groups: record.groups)
      guard (0...most).contains(record.bodyBytes) else {
        throw refuse(.corruptFrame, "\(record.bodyBytes) bytes announced for \(rows) rows, at most \(most) possible")
      }
      let mostMetadata = rows * metadataBytesPerRow
      guard (0...mostMetadata).contains(record.metadataBytes) else {
        throw refuse(
          .corruptFrame,
          "\(record.metadataBytes) bytes of metadata announced for \(rows) rows, at most \(mostMetadata) possible")
      }
    }
  }

  /// Whether all rows of this rank come and go without a frame.
  var isAllDirect: Bool { (0..<fabric.rankCount).allSatisfy { route($0) == .direct } }

  func route(_ rank: Int) -> Route {
    if rank == fabric.rank { return .direct }
    return !tables.reaches(rank) ? .message : format == .fp32 || isPlainWithinNode ? .direct : .frame
  }

  /// Rows of each group that a rank has announced.
  func rowsAnnounced(by rank: Int, group: Int) -> Int { announcement(of: rank).rows(group) }

  /// Where a rank's blocks begin in an exchange of bodies.
  func blocks(of rank: Int) -> Int { rank * (outgoing.count / fabric.rankCount) }

  /// Words of an announcement of this transfer.
  var announcementWords: Int { announcementBaseWords + noteWords }

  private var noteWords: Int { note.isEmpty ? 0 : NoteWord.allCases.count + note.count }

  func announcement(to rank: Int) -> Announcement { announcement(announced, rank) }
  func announcement(of rank: Int) -> Announcement { announcement(received, rank) }

  private func announcement(_ buffer: BufferPool.Buffer, _ rank: Int) -> Announcement {
    let base = buffer.base.assumingMemoryBound(to: UInt32.self)
    let words = UnsafeMutableBufferPointer(start: base + rank * announcementStride, count: announcementWords)
    return Announcement(words: words, capacity: groupCapacity, noteWords: noteWords)
  }

  /// Whether the rows of a body travel as one block per group: plain rows, enough of them to be worth several messages.
  /// Both ends decide it from what is announced.
  func travelsByGroup(rows: Int, groups: Int, bodyBytes: Int) -> Bool {
    format == .fp32 && bodyBytes == rows * rowBytes && bodyBytes >= groups * Self.blockBytes
  }

  /// Which values rows may hold. What is too large for the format would arrive as something else: it is refused whatever
  /// else may travel.
  var admitted: AdmittedValues { checked == nil ? .bounded : .finite }

  /// Looks at a row that is written or read without a frame.
  func check(_ row: UnsafePointer<Float>) throws(CrosspointError) {
    try admitted.check(row, codec.hidden, bound: .greatestFiniteMagnitude, .fp32)
  }

  /// What was found while reading rows, by its place in the caller's batch.
  func named(_ error: CrosspointError) -> CrosspointError {
    guard error.code == .nonFinite else { return error }
    return checked?.problem(kind, format, rank: fabric.rank)
      ?? CrosspointError(
        .nonFinite, operation: "\(kind.operation)", rank: fabric.rank, argument: "rows", error.message)
  }
}
