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
/// Every transfer of a training step is one ``run(_:format:failure:sources:sized:targets:)``:
/// 1. encode one frame per other rank;
/// 2. announce step, sizes and row counts to every rank;
/// 3. check the announcements, allocate, and agree that every rank is able to go on;
/// 4. exchange the frames, decoding each as it arrives; rows for this rank itself are copied, never coded;
/// 5. agree that every frame was intact.
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

  private(set) var measure = Measure()
  private let fabric: any Fabric
  private let codec: RowCodec
  private let packing: Packing
  private let pool: BufferPool
  private let rowBytes: Int
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

  init(
    fabric: any Fabric, layout: ExpertLayout, codec: RowCodec, packing: Packing, agreement: Agreement, pool: BufferPool
  ) throws(CrosspointError) {
    self.fabric = fabric
    self.codec = codec
    self.packing = packing
    self.pool = pool
    let ranks = fabric.rankCount
    rowBytes = layout.hidden * MemoryLayout<Float>.stride
    announcementWords = Announcement.words(groups: layout.experts(of: 0, rankCount: ranks).count)
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
    outgoing = Array(repeating: UnsafeRawBufferPointer(start: nil, count: 0), count: ranks)
    incoming = Array(repeating: UnsafeMutableRawBufferPointer(start: nil, count: 0), count: ranks)
  }

  deinit {
    pool.release(announced)
    pool.release(received)
  }

  /// One collective transfer.
  ///
  /// - Parameters:
  ///   - failure: what already went wrong on this rank; it is thrown on every rank.
  ///   - sources: appends the groups of rows for a peer.
  ///   - sized: called once every peer's row counts are known (`rows(source, group)`), before ``targets`` is asked.
  ///   - targets: appends where a peer's groups of rows go.
  func run(
    _ kind: LayerStatistics.TransferKind, format: WireFormat, failure: CrosspointError?,
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
      do throws(CrosspointError) { frames = try encode(format, collectSources) } catch { failure = error }
    }
    if failure != nil { clear(&outgoing) }
    measure.encode = watch.lap()

    try announce(kind, failed: failure != nil, collectSources)
    measure.skew = watch.lap()

    var staging: BufferPool.Buffer?
    defer { if let staging { pool.release(staging) } }
    if failure == nil {
      do throws(CrosspointError) {
        try check(kind, format)
        try sized { source, group in announcement(of: source).rows(group) }
        staging = try leaseStaging()
      } catch {
        failure = error
      }
    }
    try agreement.settle(failure, operation: kind.operation)

    var decodeSeconds = 0.0
    try fabric.exchange(send: outgoing, receive: incoming, operation: kind.operation) { peer in
      var decodeWatch = Stopwatch()
      do throws(CrosspointError) { try take(from: peer, collectSources, collectTargets) } catch {
        // A frame that does not decode is its sender's; anything else is this rank's own.
        let isFrame = error.code == .corruptFrame || error.code == .truncatedFrame
        failure = failure ?? (isFrame ? error.on(rank: peer) : error)
      }
      decodeSeconds += decodeWatch.lap()
    }
    measure.decode = decodeSeconds
    measure.wait = max(0, watch.lap() - decodeSeconds)
    try agreement.settle(failure, waitSeconds: measure.skew, operation: kind.operation)
    measure.slowestRank = agreement.slowestRank
  }

  // MARK: - Steps

  /// Encodes one frame per other rank that gets rows, side by side in one buffer.
  private func encode(
    _ format: WireFormat, _ collectSources: (Int, inout [RowSource]) -> Void
  ) throws(CrosspointError) -> BufferPool.Buffer {
    var capacity = 0
    for peer in 0..<fabric.rankCount where peer != fabric.rank {
      gather(peer, collectSources)
      capacity += codec.maximumFrameBytes(format, rows: sources.rowCount, groups: sources.count)
    }
    let frames = try pool.lease(bytes: capacity)
    do throws(CrosspointError) {
      var offset = 0
      clear(&outgoing)
      for peer in 0..<fabric.rankCount where peer != fabric.rank {
        gather(peer, collectSources)
        guard sources.rowCount > 0 else { continue }
        let room = UnsafeMutableRawBufferPointer(start: frames.base + offset, count: capacity - offset)
        let size = try codec.encode(sources, as: format, packing: packing, into: room)
        outgoing[peer] = UnsafeRawBufferPointer(start: frames.base + offset, count: size)
        offset += size
      }
      measure.wireBytes = offset + (fabric.rankCount - 1) * announcementWords * 4
    } catch {
      pool.release(frames)
      throw error
    }
    return frames
  }

  /// Exchanges announcements.
  private func announce(
    _ kind: LayerStatistics.TransferKind, failed: Bool, _ collectSources: (Int, inout [RowSource]) -> Void
  ) throws(CrosspointError) {
    for peer in 0..<fabric.rankCount {
      sources.removeAll(keepingCapacity: true)
      if !failed { collectSources(peer, &sources) }
      let record = Announcement(words: words(of: announced, peer))
      record.write(
        kind: kind, sequence: sequence, frameBytes: outgoing[peer].count, rows: { sources[$0].rows },
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
      var rows = 0
      for group in 0..<record.groups { rows += record.rows(group) }
      let most = codec.maximumFrameBytes(format, rows: rows, groups: record.groups)
      guard peer == fabric.rank || record.frameBytes <= most else {
        throw refuse(.corruptFrame, "\(record.frameBytes) bytes announced for \(rows) rows, at most \(most) possible")
      }
    }
  }

  /// One buffer for all frames to come.
  private func leaseStaging() throws(CrosspointError) -> BufferPool.Buffer {
    var total = 0
    for peer in 0..<fabric.rankCount where peer != fabric.rank { total += announcement(of: peer).frameBytes }
    let staging = try pool.lease(bytes: total)
    var offset = 0
    for peer in 0..<fabric.rankCount {
      let size = peer == fabric.rank ? 0 : announcement(of: peer).frameBytes
      incoming[peer] = UnsafeMutableRawBufferPointer(start: staging.base + offset, count: size)
      offset += size
    }
    return staging
  }

  /// Decodes a peer's frame, or copies this rank's own rows.
  private func take(
    from peer: Int, _ collectSources: (Int, inout [RowSource]) -> Void,
    _ collectTargets: (Int, inout [RowTarget]) -> Void
  ) throws(CrosspointError) {
    targets.removeAll(keepingCapacity: true)
    collectTargets(peer, &targets)
    guard peer == fabric.rank else {
      if incoming[peer].count > 0 || targets.contains(where: { $0.rows > 0 }) {
        try codec.decode(UnsafeRawBufferPointer(incoming[peer]), into: targets)
      }
      return
    }
    gather(peer, collectSources)
    measure.localBytes = sources.rowCount * rowBytes
    for (source, target) in zip(sources, targets) { source.copy(to: target, rowBytes: rowBytes) }
  }

  // MARK: - Views

  private func gather(_ peer: Int, _ collect: (Int, inout [RowSource]) -> Void) {
    sources.removeAll(keepingCapacity: true)
    collect(peer, &sources)
  }

  private func clear(_ blocks: inout [UnsafeRawBufferPointer]) {
    for peer in blocks.indices { blocks[peer] = UnsafeRawBufferPointer(start: nil, count: 0) }
  }

  private func words(of buffer: BufferPool.Buffer, _ peer: Int) -> UnsafeMutableBufferPointer<UInt32> {
    let base = buffer.base.assumingMemoryBound(to: UInt32.self)
    return UnsafeMutableBufferPointer(start: base + peer * announcementWords, count: announcementWords)
  }

  private func announcement(of peer: Int) -> Announcement { Announcement(words: words(of: received, peer)) }
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

extension RowSource {
  /// Copies the rows bit for bit.
  fileprivate func copy(to target: RowTarget, rowBytes: Int) {
    guard rows > 0 else { return }
    guard let indices else {
      memcpy(target.base, base, rows * rowBytes)
      return
    }
    let stride = rowBytes / MemoryLayout<Float>.stride
    for row in 0..<rows { memcpy(target.base + row * stride, base + Int(indices[row]) * stride, rowBytes) }
  }
}
