import CrosspointCompression
import CrosspointCore
import CrosspointTokens

/// The sender's half: rows become bodies and headers.
extension Transfer {
  /// Encodes one frame per other rank that gets rows: headers into the announcements, bodies side by side in one buffer,
  /// except those that can be sent from where their rows lie.
  func encode(
    _ kind: LayerStatistics.TransferKind, _ format: WireFormat, _ rounding: RowRounding, _ requiringFinite: Bool,
    _ collectSources: (Int, inout [RowSource]) -> Void
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
        let blocks = blocks(of: peer)
        if canSendInPlace(format) {
          bodyBytes[peer] = try codec.seal(sources, requiringFinite: requiringFinite, header: header)
          for (group, source) in sources.enumerated() {
            outgoing[blocks + group] = UnsafeRawBufferPointer(start: source.base, count: source.rows * rowBytes)
          }
        } else {
          let room = UnsafeMutableRawBufferPointer(start: bodies.base + offset, count: capacity - offset)
          let size = try encode(
            kind, format, rounding, requiringFinite, peer: peer, header: header,
            body: room)
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
          for source in sources {
            guard let high = format.highRows(of: source.rows) else { break }
            measure.highRows += high
            measure.lowRows += source.rows - high
          }
        }
      }
      measure.wireBytes += bodyBytes.reduce(0, +) + (fabric.rankCount - 1) * announcementWords * 4
    } catch {
      pool.release(bodies)
      throw error
    }
    return bodies
  }

  /// Adds what travels beside the rows.
  func sendSide() {
    guard sideBytesPerRow > 0 else { return }
    for peer in 0..<fabric.rankCount {
      outgoing[blocks(of: peer) + groupCapacity] = UnsafeRawBufferPointer(sideOut[peer])
      if peer != fabric.rank { measure.wireBytes += sideOut[peer].count }
    }
  }

  /// Encodes the gathered sources for a peer; returns the size of the body.
  private func encode(
    _ kind: LayerStatistics.TransferKind, _ format: WireFormat, _ rounding: RowRounding, _ requiringFinite: Bool,
    peer: Int, header: UnsafeMutableRawBufferPointer, body: UnsafeMutableRawBufferPointer
  ) throws(CrosspointError) -> Int {
    try codec.encode(
      sources, as: format, packing: packing, rounding: rounding.keyed(by: UInt64(peer)),
      requiringFinite: requiringFinite, header: header, body: body)
  }

  /// Whether the rows of a body travel as one block per group: plain rows, enough of them to be worth several messages.
  /// Both ends decide it from what is announced.
  func travelsByGroup(_ format: WireFormat, rows: Int, groups: Int, bodyBytes: Int) -> Bool {
    format == .fp32 && bodyBytes == rows * rowBytes && bodyBytes >= groups * Self.worthBlock
  }

  /// Whether the gathered sources form a body as they lie.
  private func canSendInPlace(_ format: WireFormat) -> Bool {
    let rows = sources.rowCount
    return packing == .none && sources.allSatisfy { $0.indices == nil }
      && travelsByGroup(format, rows: rows, groups: sources.count, bodyBytes: rows * rowBytes)
  }
}

extension [RowSource] {
  var rowCount: Int { reduce(0) { $0 + $1.rows } }
}
