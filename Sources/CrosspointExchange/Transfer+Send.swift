import CrosspointCompression
import CrosspointCore
import CrosspointTokens

/// The sender's half: rows become bodies and headers.
extension Transfer {
  /// Encodes one frame per other rank that gets rows: headers into the announcements, bodies one behind the other in one
  /// buffer, except those that can be sent from where their rows lie.
  ///
  /// - Parameter checked: the batch that the rows come from, if they must be finite; each row is looked at just before it
  ///   is read. Without, NaN and infinity travel; what is beyond the format's bound never does.
  func encode(as format: WireFormat, rounding: RowRounding, checked: CheckedBatch?) throws(CrosspointError) {
    var watch = Stopwatch()
    defer { measure.encode += watch.lap() }
    self.format = format
    self.checked = checked
    var capacity = 0
    for rank in 0..<fabric.rankCount where rank != fabric.rank && !canSendInPlace(to: rank) {
      capacity += codec.maximumBodyBytes(format, rows: sources[rank].rowCount, groups: sources[rank].count)
    }
    frames = try pool.lease(bytes: capacity)
    var offset = 0
    for rank in 0..<fabric.rankCount where rank != fabric.rank && sources[rank].rowCount > 0 {
      do throws(CrosspointError) {
        if canSendInPlace(to: rank) {
          try seal(to: rank)
        } else {
          let room = UnsafeMutableRawBufferPointer(start: frames.base + offset, count: capacity - offset)
          offset += try encode(to: rank, into: room, rounding.keyed(by: UInt64(rank)))
        }
      } catch {
        throw named(error)
      }
    }
    measure.wireBytes += bodyBytes.reduce(0, +) + (fabric.rankCount - 1) * announcementWords * 4
  }

  /// Rows that are sent from where they lie, a block per group.
  private func seal(to rank: Int) throws(CrosspointError) {
    bodyBytes[rank] = try codec.seal(
      sources[rank], admitting: admitted, header: announcement(to: rank).header)
    let blocks = blocks(of: rank)
    for (group, source) in sources[rank].enumerated() {
      outgoing[blocks + group] = UnsafeRawBufferPointer(start: source.base, count: source.rows * rowBytes)
    }
  }

  /// Rows that are coded or gathered; returns the size of the body.
  private func encode(
    to rank: Int, into room: UnsafeMutableRawBufferPointer, _ rounding: RowRounding
  ) throws(CrosspointError) -> Int {
    let sources = sources[rank]
    let size = try codec.encode(
      sources, as: format, rounding: rounding, admitting: admitted,
      header: announcement(to: rank).header, body: room)
    bodyBytes[rank] = size
    let blocks = blocks(of: rank)
    outgoing[blocks] = UnsafeRawBufferPointer(start: room.baseAddress, count: size)
    if travelsByGroup(rows: sources.rowCount, groups: sources.count, bodyBytes: size) {
      var start = 0
      for (group, source) in sources.enumerated() {
        outgoing[blocks + group] = UnsafeRawBufferPointer(rebasing: room[start..<start + source.rows * rowBytes])
        start += source.rows * rowBytes
      }
    }
    return size
  }

  /// Whether the groups to a rank form a body as they lie.
  func canSendInPlace(to rank: Int) -> Bool {
    let rows = sources[rank].rowCount
    return sources[rank].allSatisfy { $0.indices == nil }
      && travelsByGroup(rows: rows, groups: sources[rank].count, bodyBytes: rows * rowBytes)
  }

  /// Adds the metadata to what is sent.
  func addMetadata() {
    guard metadataBytesPerRow > 0 else { return }
    for rank in 0..<fabric.rankCount {
      outgoing[blocks(of: rank) + groupCapacity] = UnsafeRawBufferPointer(metadataOut[rank])
      if rank != fabric.rank { measure.wireBytes += metadataOut[rank].count }
    }
  }

  /// Nothing to send to anybody.
  func clearOutgoing() {
    for block in outgoing.indices { outgoing[block] = UnsafeRawBufferPointer(start: nil, count: 0) }
    for rank in bodyBytes.indices {
      bodyBytes[rank] = 0
      announcement(to: rank).header.initializeMemory(as: UInt8.self, repeating: 0)
    }
  }
}

extension [RowSource] {
  var rowCount: Int { reduce(0) { $0 + $1.rows } }
}
