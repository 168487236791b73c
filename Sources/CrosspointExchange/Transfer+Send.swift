import CrosspointCompression
import CrosspointCore
import CrosspointTokens

/// The sender's half: rows become bodies and headers.
extension Transfer {
  /// Encodes one frame per rank that gets one: headers into the announcements, bodies one behind the other in one buffer,
  /// except those that can be sent from where their rows lie.
  ///
  /// Rows for ranks with a direct route are written later, or not at all if they are read where they lie.
  func encode(as format: WireFormat, rounding: RowRounding) throws(CrosspointError) {
    var watch = Stopwatch()
    defer { measure.encode += watch.lap() }
    self.format = format
    var capacity = 0
    for rank in 0..<fabric.rankCount where route(rank) != .direct && !canSendInPlace(to: rank) {
      if !fitsBehindRecord(to: rank) { capacity += mostBytes(to: rank) }
    }
    frames = try pool.lease(bytes: capacity)
    var offset = 0
    for rank in 0..<fabric.rankCount where route(rank) != .direct && sources[rank].rowCount > 0 {
      do throws(CrosspointError) {
        if canSendInPlace(to: rank) {
          try seal(to: rank)
        } else if fitsBehindRecord(to: rank) {
          _ = try encode(to: rank, into: spaceBehindRecord(to: rank), rounding.keyed(by: UInt64(rank)))
        } else {
          let room = UnsafeMutableRawBufferPointer(start: frames.base + offset, count: capacity - offset)
          offset += try encode(to: rank, into: room, rounding.keyed(by: UInt64(rank)))
        }
      } catch {
        throw named(error)
      }
    }
    readsInPlace = tables.offer(offered)
    for rank in tables.ranks where route(rank) == .direct {
      if readsInPlace { tables.setGroups(for: rank, sources[rank]) }
      let bytes = sources[rank].rowCount * rowBytes
      if rank == fabric.rank { measure.localBytes = bytes } else { bodyBytes[rank] = bytes }
    }
    measure.wireBytes += standingBytes
  }

  /// The most bytes of the body of a frame to a rank.
  private func mostBytes(to rank: Int) -> Int {
    codec.maximumBodyBytes(format, rows: sources[rank].rowCount, groups: sources[rank].count)
  }

  /// Whether the body of a frame to a rank travels with its announcement, however well it codes.
  private func fitsBehindRecord(to rank: Int) -> Bool {
    route(rank) == .message && mostBytes(to: rank) + metadataOut[rank].count <= smallBytes
  }

  /// What keeping a memory the same on all ranks takes of each step, of a rank that sends rows.
  var standingBytes: Int {
    let sends = sources.indices.contains { $0 != fabric.rank && sources[$0].rowCount > 0 }
    return sends ? memory?.bytesPerStep ?? 0 : 0
  }

  /// Rows that are sent from where they lie, a block per group.
  private func seal(to rank: Int) throws(CrosspointError) {
    bodyBytes[rank] = try codec.seal(
      sources[rank], admitting: admitted, header: announcement(to: rank).header)
  }

  /// Rows that are coded or gathered; returns the size of the body.
  private func encode(
    to rank: Int, into room: UnsafeMutableRawBufferPointer, _ rounding: RowRounding
  ) throws(CrosspointError) -> Int {
    let sources = sources[rank]
    let size = try codec.encode(
      sources, as: format, rounding: rounding, memory: memory, admitting: admitted,
      header: announcement(to: rank).header, body: room)
    bodyBytes[rank] = size
    encoded[rank] = UnsafeRawBufferPointer(start: room.baseAddress, count: size)
    return size
  }

  /// A body that travels in messages of its own: one, or one for each group of rows.
  func layOutBody(for rank: Int) {
    guard bodyBytes[rank] > 0 else { return }
    let (sources, blocks) = (sources[rank], blocks(of: rank))
    if canSendInPlace(to: rank) {
      for (group, source) in sources.enumerated() {
        outgoing[blocks + group] = UnsafeRawBufferPointer(start: source.first.base, count: source.rows * rowBytes)
      }
    } else if travelsByGroup(rows: sources.rowCount, groups: sources.count, bodyBytes: bodyBytes[rank]) {
      var start = 0
      for (group, source) in sources.enumerated() {
        let end = start + source.rows * rowBytes
        outgoing[blocks + group] = UnsafeRawBufferPointer(rebasing: encoded[rank][start..<end])
        start = end
      }
    } else {
      outgoing[blocks] = encoded[rank]
    }
  }

  /// Finds where ranks with a direct route want their rows.
  func findRowsToWrite() throws(CrosspointError) {
    for rank in tables.ranks where route(rank) == .direct {
      let sources = sources[rank]
      try tables.findGroups(of: rank, sources.count, hidden: codec.hidden, targetType, into: &nodeRows[rank]) {
        sources[$0].rows
      }
    }
  }

  /// Writes the rows for a rank with a direct route where they belong.
  func writeRows(to rank: Int) throws(CrosspointError) {
    guard route(rank) == .direct else { return }
    for (source, target) in zip(sources[rank], nodeRows[rank]) {
      for index in 0..<source.rows {
        let row = source.row(index, hidden: codec.hidden)
        try check(row)
        target.row(index, hidden: codec.hidden).store(row, codec.hidden)
      }
    }
  }

  /// Whether the groups to a rank form a body as they lie.
  func canSendInPlace(to rank: Int) -> Bool {
    let rows = sources[rank].rowCount
    return route(rank) == .message && sources[rank].allSatisfy { $0.indices == nil }
      && travelsByGroup(rows: rows, groups: sources[rank].count, bodyBytes: rows * rowBytes)
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
  package var rowCount: Int { reduce(0) { $0 + $1.rows } }
}
