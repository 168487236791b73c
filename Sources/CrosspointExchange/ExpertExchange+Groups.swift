import CrosspointCompression
import CrosspointTokens

/// Where the groups of rows of a transfer lie, on either side.
///
/// Source side: rows ordered by expert, one run per expert. Expert side: rows ordered by local expert and, within it, by
/// source rank.
extension ExpertExchange {
  func expertsOf(_ peer: Int) -> Range<Int> { lanes.experts(of: peer, rankCount: fabric.rankCount) }

  /// Rows of `base` that belong to the experts of `peer`.
  func sourceSideSources(
    _ peer: Int, _ handle: DispatchHandle, _ base: UnsafePointer<Float>, _ groups: inout [RowSource]
  ) {
    for expert in expertsOf(peer) {
      let rows = handle.plan.rows(of: expert)
      groups.append(RowSource(base: base + rows.lowerBound * layout.hidden, indices: nil, rows: rows.count))
    }
  }

  /// Where rows from the experts of `peer` go.
  func sourceSideTargets(
    _ peer: Int, _ handle: DispatchHandle, _ base: UnsafeMutablePointer<Float>, _ groups: inout [RowTarget]
  ) {
    for expert in expertsOf(peer) {
      let rows = handle.plan.rows(of: expert)
      groups.append(RowTarget(base: base + rows.lowerBound * layout.hidden, rows: rows.count))
    }
  }

  /// Rows of `base` that came from `peer`.
  func expertSideSources(
    _ peer: Int, _ handle: DispatchHandle, _ base: UnsafePointer<Float>, _ groups: inout [RowSource]
  ) {
    forEachExpertSideGroup(peer, handle) { start, rows in
      groups.append(RowSource(base: base + start * layout.hidden, indices: nil, rows: rows))
    }
  }

  /// Where rows from `peer` go.
  func expertSideTargets(
    _ peer: Int, _ handle: DispatchHandle, _ base: UnsafeMutablePointer<Float>, _ groups: inout [RowTarget]
  ) {
    forEachExpertSideGroup(peer, handle) { start, rows in
      groups.append(RowTarget(base: base + start * layout.hidden, rows: rows))
    }
  }

  private func forEachExpertSideGroup(
    _ peer: Int, _ handle: DispatchHandle, _ body: (_ start: Int, _ rows: Int) -> Void
  ) {
    let locals = localLanes.count
    var expertStart = 0
    for local in 0..<locals {
      var start = expertStart
      for earlier in 0..<peer { start += handle.receivedRows[earlier * locals + local] }
      body(start, handle.receivedRows[peer * locals + local])
      expertStart += handle.rowsPerLane[local]
    }
  }

  /// Routed pairs of a dispatch whose expert is on another rank.
  func routedAway(_ handle: DispatchHandle) -> Int {
    let tokensPerExpert = handle.routing?.tokensPerExpert ?? []
    return tokensPerExpert.indices.reduce(0) { $0 + (localExperts.contains($1) ? 0 : tokensPerExpert[$1]) }
  }

  /// Adds the last transfer to the statistics.
  func record(_ kind: Kind, _ handle: DispatchHandle) {
    let measure = transfer.measure
    // Counted at the source in both directions: summed over ranks, what fp32 rows would have taken.
    let rowBytes = layout.hidden * MemoryLayout<Float>.stride
    statistics.traffic[kind.rawValue].wireBytes += measure.wireBytes
    statistics.traffic[kind.rawValue].uncompressedBytes += routedAway(handle) * rowBytes
    statistics.traffic[kind.rawValue].localBytes += measure.localBytes
    statistics.traffic[kind.rawValue].highRows += measure.highRows
    statistics.traffic[kind.rawValue].lowRows += measure.lowRows
    statistics.seconds.encode += measure.encode
    statistics.seconds.skew += measure.skew
    statistics.seconds.wait += measure.wait
    statistics.seconds.decode += measure.decode
    statistics.seconds.meanwhile += measure.meanwhile
    statistics.timesSlowest[measure.slowestRank] += 1
  }
}
