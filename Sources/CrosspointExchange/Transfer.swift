import CrosspointCompression
import CrosspointCore
import CrosspointFabric
import CrosspointTokens

/// Moves groups of rows between all ranks, in phases that its caller runs in order.
///
/// | phase | collective | |
/// |---|---|---|
/// | ``begin(_:_:of:)`` | | the caller then fills ``sources`` |
/// | ``encode(as:rounding:)`` | | a frame for every rank that gets one |
/// | ``place()`` | | the caller has filled ``targets``: memory for what will arrive; ranks of the node are told where |
/// | ``beginAnnouncement(_:)`` | waits for nobody | verdict, step, sizes, row counts and small bodies, to every rank |
/// | ``finishAnnouncement(meanwhile:_:)`` | yes | what all ranks have announced; all go on, or all throw; the caller's work while they have not |
/// | ``settle(_:)`` | if ``settlesPlaces`` | every rank has its places, or all throw |
/// | ``move(writing:meanwhile:waves:_:)`` | if ``movesBodies`` | rows are written or decoded, other bodies travel, the caller's work is done |
/// | ``settle(_:)`` | yes | every row is there, or all throw |
/// | ``end()`` | | memory goes back |
///
/// A dispatch learns from the announcements how many rows come: it places behind them, and only there a rank may find that
/// it has no memory when others count on it.
///
/// Several transfers can be under way, each an object of its own. Ranks begin and finish them in the same order.
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
    /// Another node: a frame in a message. Large groups of plain rows travel as a block each, out of the memory where
    /// they lie unless they must be gathered, into the memory where they belong; both ends only sum them.
    case message
    /// The same node, coded: the receiver reads the frame in the sender's memory.
    case frame
    /// The same node, plain or not to be coded, or this rank itself: rows are written once, where they belong, or read where they lie.
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

  /// Bodies for other nodes up to so many bytes, with their metadata, travel with their announcement: fewer than a block,
  /// and for all ranks together at most a mebibyte.
  static func smallBytes(ranks: Int) -> Int { ranks == 1 ? 0 : min(blockBytes - 64, (1 << 20) / ranks & ~63) }

  let fabric: any Fabric
  let codec: RowCodec
  let pool: BufferPool
  /// How the caller's rows lie in memory, and the format that carries them as they lie.
  let rows: RowType
  let plain: WireFormat
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

  private let noteCapacity: Int
  /// How long this rank waited for the others in the last transfer.
  private(set) var waitedSeconds: Float = 0

  // The transfer under way.
  private(set) var kind = TransferKind.dispatch
  private(set) var sequence: UInt64 = 0
  /// The sequence number of the dispatch that the rows belong to.
  var dispatch: UInt64 = 0
  @exclusivity(unchecked) var format: WireFormat
  /// The batch that the rows come from, if they must be finite; each row is looked at just before it is read. Without, NaN and
  /// infinity travel; what is beyond the format's bound never does.
  var checked: CheckedBatch?
  /// What both ends remember of the rows under way. Set before ``encode(as:rounding:)``.
  var memory: RowMemory?
  var measure = Measure()
  /// Groups of rows to every rank, in the order of its destinations.
  @exclusivity(unchecked) var sources: [[RowSource]]
  /// Where the groups of rows from every rank go.
  @exclusivity(unchecked) var targets: [[RowTarget]]
  /// Metadata to and from every rank, this one included; the receiver's is valid until ``end()``.
  @exclusivity(unchecked) var metadataOut: RankBlocks
  @exclusivity(unchecked) var metadataIn: [UnsafeRawBufferPointer]
  /// Rows that all groups to ranks of this node are part of, if they stay unchanged until the last vote: then those ranks may
  /// read them where they lie. Set before ``encode(as:rounding:)``.
  var offered: RowsView?
  /// Whether rows from ranks with a direct route are read where they lie; the same on all of them when announced, and before
  /// whether this one's can be.
  var readsInPlace = false
  /// Whether there is memory for what will arrive, and ranks of the node know where.
  var hasPlaces = false
  /// Whether any of the caller's work is left.
  var hasWork = false
  /// Whether all ranks have been heard, and what they say of the whole transfer: a vote must tell that all have places; bodies
  /// travel that did not come with their announcements.
  var isAnnounced = false
  var sharesMemory = false
  var settlesPlaces = false
  var movesBodies = false
  /// Whether experts work in waves, here and on any rank; and whether ranks of a node write rows where they belong: those are
  /// there after the last vote only.
  var isInWaves = false
  var anyInWaves = false
  var hasLateRows = false
  /// Whether rows are noted as they come, those that are there to be given to the experts, and whether any are left.
  var notesArrivals = false
  @exclusivity(unchecked) var arrivals: [Arrival] = []
  var hasWaves = false
  /// For ranks with a direct route, where their groups of rows lie that are read, or where those belong that are written.
  @exclusivity(unchecked) var nodeRows: [[RowTarget]]
  /// What a policy tells every other rank with its announcements, as many floats on every rank, behind what the transfer
  /// itself finds out, see ``NoteWord``; none: neither is told. Set before ``encode(as:rounding:)``.
  var note = UnsafeMutableBufferPointer<Float>(start: nil, count: 0)

  /// The fabric's exchange of its announcements.
  var announcementNumber = 0

  // Its memory.
  var frames = BufferPool.Buffer.empty
  var staging = BufferPool.Buffer.empty
  let announced: BufferPool.Buffer
  let received: BufferPool.Buffer
  /// Bodies for other nodes up to so many bytes, with their metadata, travel with their announcement.
  let smallBytes: Int
  /// Words of an announcement without a note, and bytes from one to the next.
  let announcementBaseWords: Int
  let announcementStride: Int
  @exclusivity(unchecked) var announcements: [UnsafeRawBufferPointer]
  @exclusivity(unchecked) var announcementsReceived: [UnsafeMutableRawBufferPointer]
  /// The records that have come.
  @exclusivity(unchecked) var records: [UnsafeRawBufferPointer]
  @exclusivity(unchecked) var outgoing: [UnsafeRawBufferPointer]
  @exclusivity(unchecked) var incoming: [UnsafeMutableRawBufferPointer]
  @exclusivity(unchecked) var bodyBytes: [Int]
  /// The bodies of frames that were encoded for other ranks, and of those from others that do not arrive in place.
  @exclusivity(unchecked) var encoded: [UnsafeRawBufferPointer]
  @exclusivity(unchecked) var bodies: [UnsafeRawBufferPointer]
  /// Whether a rank's body travels with its announcement.
  @exclusivity(unchecked) var carriesBody: [Bool]
  /// Ranks whose rows need not be waited for, those of this node first.
  @exclusivity(unchecked) var ready: [Int] = []
  /// Whether a rank's body arrives where its rows belong.
  @exclusivity(unchecked) var arrivesInPlace: [Bool]
  /// Where a frame of this rank's own is decoded.
  @exclusivity(unchecked) var ownTargets: [RowTarget] = []

  init(
    fabric: any Fabric, groups: Int, metadataBytesPerRow: Int, codec: RowCodec,
    isPlainWithinNode: Bool, noteCapacity: Int, smallBytes: Int?, agreement: Agreement, pool: BufferPool
  ) throws(CrosspointError) {
    self.fabric = fabric
    self.codec = codec
    self.pool = pool
    self.agreement = agreement
    self.isPlainWithinNode = isPlainWithinNode
    self.metadataBytesPerRow = metadataBytesPerRow
    self.noteCapacity = noteCapacity
    let ranks = fabric.rankCount
    rows = codec.rows
    plain = .lossless(of: rows)
    format = plain
    rowBytes = codec.hidden * rows.bytes
    groupCapacity = groups
    metadataOut = RankBlocks(ranks: ranks, pool: pool)
    metadataIn = Array(repeating: UnsafeRawBufferPointer(start: nil, count: 0), count: ranks)
    (encoded, bodies) = (metadataIn, metadataIn)
    nodeRows = Array(repeating: [], count: ranks)
    tables = try NodeTables(fabric: fabric, groups: groupCapacity, pool: pool)
    announcementBaseWords = Announcement.words(
      groups: groupCapacity, headerBytes: RowCodec.headerBytes(groups: groupCapacity))
    self.smallBytes = smallBytes ?? Self.smallBytes(ranks: ranks)
    let words = announcementBaseWords + NoteWord.allCases.count + noteCapacity
    announcementStride = (SealedRecord.size(of: 4 * words) + self.smallBytes + 63) & ~63
    announced = try pool.lease(bytes: ranks * announcementStride)
    received = try pool.lease(bytes: ranks * announcementStride)
    announcements = Array(repeating: UnsafeRawBufferPointer(start: nil, count: 0), count: ranks)
    records = announcements
    announcementsReceived = Array(repeating: UnsafeMutableRawBufferPointer(start: nil, count: 0), count: ranks)
    let blocks = ranks * (groupCapacity + (metadataBytesPerRow > 0 ? 1 : 0))
    outgoing = Array(repeating: UnsafeRawBufferPointer(start: nil, count: 0), count: blocks)
    incoming = Array(repeating: UnsafeMutableRawBufferPointer(start: nil, count: 0), count: blocks)
    bodyBytes = Array(repeating: 0, count: ranks)
    carriesBody = Array(repeating: false, count: ranks)
    arrivesInPlace = Array(repeating: false, count: ranks)
    sources = Array(repeating: [], count: ranks)
    targets = Array(repeating: [], count: ranks)
  }

  /// One like another, for a transfer while that one is under way.
  convenience init(like other: Transfer) throws(CrosspointError) {
    try self.init(
      fabric: other.fabric, groups: other.groupCapacity, metadataBytesPerRow: other.metadataBytesPerRow,
      codec: other.codec, isPlainWithinNode: other.isPlainWithinNode, noteCapacity: other.noteCapacity,
      smallBytes: other.smallBytes, agreement: other.agreement, pool: other.pool)
  }

  deinit {
    end()
    pool.release(announced)
    pool.release(received)
  }

  /// Begins a transfer, with nothing to send.
  /// - Parameters:
  ///   - sequence: its number among those of the exchange.
  ///   - dispatch: that of the dispatch that its rows belong to.
  func begin(_ kind: TransferKind, _ sequence: UInt64, of dispatch: UInt64) {
    self.kind = kind
    format = plain
    memory = nil
    (self.sequence, self.dispatch) = (sequence, dispatch)
    measure = Measure()
    note = UnsafeMutableBufferPointer(start: nil, count: 0)
    offered = nil
    (readsInPlace, hasPlaces, isAnnounced, settlesPlaces, movesBodies, hasWork) = (
      false, false, false, false, false, true
    )
    (isInWaves, anyInWaves, hasLateRows, notesArrivals, hasWaves) = (false, false, false, false, false)
    arrivals.removeAll(keepingCapacity: true)
    tables.offer(nil)
    metadataOut.clear()
    clearSources()
    clearTargets()
    clearOutgoing()
  }

  /// Forgets where rows go.
  func clearTargets() {
    for rank in targets.indices { targets[rank].removeAll(keepingCapacity: true) }
  }

  /// Forgets the groups to send.
  func clearSources() {
    for rank in sources.indices { sources[rank].removeAll(keepingCapacity: true) }
  }

  /// A batch without rows.
  var noRows: TokenBatch { TokenBatch(emptyOfHidden: codec.hidden, type: rows, pool: pool) }

  /// Gives the memory of a transfer back, however it ended.
  func end() {
    pool.release(frames)
    pool.release(staging)
    (frames, staging) = (.empty, .empty)
    checked = nil
  }

  /// Throws on every rank if any rank's attempt has failed. Collective.
  func settle(_ attempt: borrowing Attempt) throws(CrosspointError) {
    var watch = Stopwatch()
    try agreement.settle(
      attempt.failure, waitSeconds: measure.skew, subject: announcementNumber, operation: kind.operation)
    measure.wait += watch.lap()
    measure.slowestRank = agreement.slowestRank
    waitedSeconds = Float(measure.skew)
  }

  /// Leaves it to the next announcement, or vote, to tell what went wrong. Collective.
  func deferVote(_ attempt: borrowing Attempt) {
    fabric.collectiveMemory.deferVote(attempt.failure)
    waitedSeconds = Float(measure.skew)
  }

  /// Whether all rows of this rank come and go without a frame.
  var isAllDirect: Bool { (0..<fabric.rankCount).allSatisfy { route($0) == .direct } }

  func route(_ rank: Int) -> Route {
    if rank == fabric.rank { return .direct }
    return !tables.reaches(rank) ? .message : format == plain || isPlainWithinNode ? .direct : .frame
  }

  /// How rows lie at home that are sums to be sent, or are to be summed: as floats where the wire codes them, so that each is
  /// rounded to the caller's type but once, where it is handed out.
  var homeType: RowType { format == plain ? rows : .fp32 }

  /// How rows lie where they are received.
  var targetType: RowType { kind == .dispatch || kind == .combineBackward ? rows : homeType }

  /// Where a rank's blocks begin in an exchange of bodies.
  func blocks(of rank: Int) -> Int { rank * (outgoing.count / fabric.rankCount) }

  /// Whether the rows of a body travel as one block per group: plain rows, enough of them to be worth several messages.
  /// Both ends decide it from what is announced.
  func travelsByGroup(rows: Int, groups: Int, bodyBytes: Int) -> Bool {
    format == plain && bodyBytes == rows * rowBytes && bodyBytes >= groups * Self.blockBytes
  }

  /// Which values rows may hold. What is too large for the format would arrive as something else: it is refused whatever
  /// else may travel.
  var admitted: AdmittedValues { checked == nil ? .bounded : .finite }

  /// Looks at a row that is written or read without a frame.
  func check(_ row: RowPointer) throws(CrosspointError) {
    try admitted.check(row, codec.hidden, bound: .greatestFiniteMagnitude, plain)
  }

  /// What was found while reading rows, by its place in the caller's batch.
  func named(_ error: CrosspointError) -> CrosspointError {
    guard error.code == .nonFinite else { return error }
    return checked?.problem(kind, format, rank: fabric.rank)
      ?? CrosspointError(
        .nonFinite, operation: "\(kind.operation)", rank: fabric.rank, argument: "rows", error.message)
  }
}
