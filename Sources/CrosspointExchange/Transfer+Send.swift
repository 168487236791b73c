import CrosspointCompression
import CrosspointCore
import CrosspointTokens

#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

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
      capacity += codec.maximumBodyBytes(format, rows: sources[rank].rowCount, groups: sources[rank].count)
    }
    frames = try pool.lease(bytes: capacity)
    var offset = 0
    for rank in 0..<fabric.rankCount where route(rank) != .direct && sources[rank].rowCount > 0 {
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
    let offers = tables.offer(offered)
    for rank in tables.ranks where route(rank) == .direct {
      if offers { tables.setGroups(for: rank, sources[rank]) }
      let bytes = sources[rank].rowCount * rowBytes
      if rank == fabric.rank { measure.localBytes = bytes } else { bodyBytes[rank] = bytes }
    }
    measure.wireBytes += bodyBytes.reduce(0, +) + (fabric.rankCount - 1) * announcementWords * 4
    for rank in tables.ranks { measure.nodeBytes += bodyBytes[rank] }
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
    encoded[rank] = UnsafeRawBufferPointer(start: room.baseAddress, count: size)
    let blocks = blocks(of: rank)
    if route(rank) == .frame {
      tables.set(.frame, for: rank, encoded[rank])
    } else if travelsByGroup(rows: sources.rowCount, groups: sources.count, bodyBytes: size) {
      var start = 0
      for (group, source) in sources.enumerated() {
        outgoing[blocks + group] = UnsafeRawBufferPointer(rebasing: room[start..<start + source.rows * rowBytes])
        start += source.rows * rowBytes
      }
    } else {
      outgoing[blocks] = encoded[rank]
    }
    return size
  }

  /// Finds where ranks with a direct route want their rows.
  func findRowsToWrite() throws(CrosspointError) {
    for rank in tables.ranks where route(rank) == .direct {
      let sources = sources[rank]
      try tables.findGroups(of: rank, sources.count, hidden: codec.hidden, into: &nodeRows[rank]) { sources[$0].rows }
    }
  }

  /// Writes the rows for a rank with a direct route where they belong.
  func writeRows(to rank: Int) throws(CrosspointError) {
    guard route(rank) == .direct else { return }
    for (source, target) in zip(sources[rank], nodeRows[rank]) {
      for index in 0..<source.rows {
        let row = source.row(index, hidden: codec.hidden)
        try check(row)
        memcpy(target.base + index * codec.hidden, row, rowBytes)
      }
    }
  }

  /// Whether the groups to a rank form a body as they lie.
  func canSendInPlace(to rank: Int) -> Bool {
    let rows = sources[rank].rowCount
    return route(rank) == .message && sources[rank].allSatisfy { $0.indices == nil }
      && travelsByGroup(rows: rows, groups: sources[rank].count, bodyBytes: rows * rowBytes)
  }

  /// Adds the metadata to what is sent.
  func addMetadata() {
    guard metadataBytesPerRow > 0 else { return }
    for rank in 0..<fabric.rankCount {
      let metadata = UnsafeRawBufferPointer(metadataOut[rank])
      if rank != fabric.rank { measure.wireBytes += metadata.count }
      if tables.reaches(rank) {
        tables.set(.metadata, for: rank, metadata)
        if rank != fabric.rank { measure.nodeBytes += metadata.count }
      } else {
        outgoing[blocks(of: rank) + groupCapacity] = metadata
      }
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
  package var rowCount: Int { reduce(0) { $0 + $1.rows } }
}
