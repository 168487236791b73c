import CrosspointCompression
import CrosspointCore
import CrosspointTokens

#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// The receiver's half: bodies become rows.
extension Transfer {
  /// Decides where each body arrives: where its rows belong, if they travel as they are, or in one buffer for all others.
  func placeIncoming(
    _ format: WireFormat, _ collectTargets: (Int, inout [RowTarget]) -> Void
  ) throws(CrosspointError) -> BufferPool.Buffer {
    var staged = 0
    for peer in 0..<fabric.rankCount {
      let blocks = blocks(of: peer)
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
      incoming[blocks(of: peer)] = UnsafeMutableRawBufferPointer(start: staging.base + offset, count: size)
      offset += size
    }
    return staging
  }

  /// Makes room for what travels beside the rows.
  func placeSide() throws(CrosspointError) {
    guard sideBytesPerRow > 0 else { return }
    try sideIn.layOut { announcement(of: $0).sideBytes }
    for peer in 0..<fabric.rankCount { incoming[blocks(of: peer) + groupCapacity] = sideIn[peer] }
  }

  /// Copies this rank's rows for itself.
  func copyOwn(
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
  func take(
    _ kind: LayerStatistics.TransferKind, from peer: Int, _ collectTargets: (Int, inout [RowTarget]) -> Void
  ) throws(CrosspointError) {
    guard Announcement.hash(UnsafeRawBufferPointer(sideIn[peer])) == announcement(of: peer).sideHash else {
      throw CrosspointError(
        .corruptFrame, operation: "\(kind.operation)", rank: peer, argument: "side",
        "\(sideIn[peer].count) bytes arrived damaged")
    }
    guard peer != fabric.rank else { return }
    gather(peer, collectTargets)
    let body = UnsafeRawBufferPointer(incoming[blocks(of: peer)])
    guard arrivesInPlace[peer] || body.count > 0 || targets.rowCount > 0 else { return }
    let header = UnsafeRawBufferPointer(
      rebasing: announcement(of: peer).header[..<RowCodec.headerBytes(groups: targets.count)])
    if arrivesInPlace[peer] {
      try codec.verify(header: header, in: targets)
    } else {
      try codec.decode(header: header, body: body, into: targets)
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
