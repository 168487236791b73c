import CrosspointCore

/// Collectives for every fabric, written once over `exchange`, so that MPI and the simulated cluster give the same bits.
///
/// All are collective: every rank must call them in the same order with the same sizes. All throw what `exchange` throws;
/// a rank whose size differs is caught as ``CrosspointError/Code/truncatedFrame``. One rank alone communicates nothing.
///
/// Blocks of up to 4096 bytes (votes, counts, options, totals) travel twice, each copy with a checksum: see
/// ``SealedRecord``. What makes ranks part is therefore never a damaged byte. Larger ones travel once with a checksum, and a
/// vote follows: damage is `corruptFrame` with its sender on every rank, agreed on.
extension Fabric {
  /// Collects one block of equal size from every rank: `all` holds rank 0's block, then rank 1's, and so on. Collective.
  ///
  /// - Parameters:
  ///   - mine: this rank's block; the same size on every rank.
  ///   - all: `rankCount · mine.count` bytes; must not overlap `mine`.
  /// - Throws: also `corruptFrame`, on a rank that finds a small block damaged beyond repair.
  public func allgather(
    _ mine: UnsafeRawBufferPointer, into all: UnsafeMutableRawBufferPointer, operation: StaticString
  ) throws(CrosspointError) {
    precondition(all.count == rankCount * mine.count, "\(all.count) bytes for \(rankCount) blocks of \(mine.count)")
    guard rankCount > 1 else { return all.copyMemory(from: mine) }
    guard mine.count <= sealedLimit else {
      collectiveMemory.send.refill(with: mine, count: rankCount)
      collectiveMemory.receive(into: all, parts: rankCount)
      try settle(exchangeChecked(operation: operation), operation: operation)
      return
    }
    try gather(mine, operation: operation) { source, block in
      UnsafeMutableRawBufferPointer(rebasing: all[(source * block.count)...]).copyMemory(from: block)
    }
  }

  /// Calls `body` with one small block of equal size from every rank, in rank order. Collective.
  /// - Throws: also `corruptFrame`, on a rank that finds a block damaged beyond repair, and `outOfMemory`.
  func gather(
    _ mine: UnsafeRawBufferPointer, operation: StaticString,
    _ body: (_ source: Int, _ block: UnsafeRawBufferPointer) -> Void
  ) throws(CrosspointError) {
    guard rankCount > 1 else { return body(rank, mine) }
    let size = SealedRecord.size(of: mine.count)
    let records = try collectiveMemory.take(bytes: (rankCount + 1) * size, operation: operation)
    let own = UnsafeMutableRawBufferPointer(rebasing: records[(rankCount * size)...])
    SealedRecord.seal(mine, into: own)
    collectiveMemory.send.refill(with: UnsafeRawBufferPointer(own), count: rankCount)
    collectiveMemory.receive(
      into: UnsafeMutableRawBufferPointer(rebasing: records[..<(rankCount * size)]), parts: rankCount)
    try exchange(send: collectiveMemory.send, receive: collectiveMemory.receive, operation: operation)
    for source in 0..<rankCount {
      let record = UnsafeRawBufferPointer(collectiveMemory.receive[source])
      body(source, try SealedRecord.open(record, from: source, to: rank, operation: operation))
    }
  }

  /// Copies `bytes` of rank `root` over `bytes` of every other rank. Collective.
  ///
  /// The root sends to each rank in turn: meant for configuration and checkpoints, not for the training loop.
  /// - Throws: also `corruptFrame`, on a rank that finds a small block damaged beyond repair.
  public func broadcast(
    _ bytes: UnsafeMutableRawBufferPointer, from root: Int, operation: StaticString
  ) throws(CrosspointError) {
    precondition(root >= 0 && root < rankCount, "root \(root) of \(rankCount) ranks")
    guard rankCount > 1 else { return }
    guard bytes.count <= sealedLimit else {
      lay(bytes, from: root)
      try settle(exchangeChecked(operation: operation), operation: operation)
      return
    }
    try withUnsafeTemporaryAllocation(byteCount: SealedRecord.size(of: bytes.count), alignment: 8) {
      record throws(CrosspointError) in
      if rank == root { SealedRecord.seal(UnsafeRawBufferPointer(bytes), into: record) }
      lay(record, from: root)
      try exchange(send: collectiveMemory.send, receive: collectiveMemory.receive, operation: operation)
      guard rank != root else { return }
      bytes.copyMemory(
        from: try SealedRecord.open(UnsafeRawBufferPointer(record), from: root, to: rank, operation: operation))
    }
  }

  /// Makes the root's bytes the one block that it sends to each other rank.
  private func lay(_ bytes: UnsafeMutableRawBufferPointer, from root: Int) {
    let nothing = UnsafeMutableRawBufferPointer(start: nil, count: 0)
    collectiveMemory.send.refill(
      with: UnsafeRawBufferPointer(rank == root ? bytes : nothing), count: rankCount)
    collectiveMemory.send[root] = UnsafeRawBufferPointer(nothing)
    collectiveMemory.receive.refill(with: nothing, count: rankCount)
    if rank != root { collectiveMemory.receive[root] = bytes }
  }

  /// Returns when every rank has called it. Collective.
  public func barrier(operation: StaticString) throws(CrosspointError) {
    guard rankCount > 1 else { return }
    // One byte each: a fabric need not transmit empty blocks.
    try withUnsafeTemporaryAllocation(byteCount: rankCount + 1, alignment: 1) { bytes throws(CrosspointError) in
      bytes.initializeMemory(as: UInt8.self, repeating: 0)
      let mine = UnsafeRawBufferPointer(rebasing: bytes[..<1])
      try allgather(mine, into: UnsafeMutableRawBufferPointer(rebasing: bytes[1...]), operation: operation)
    }
  }
}

/// The largest block that travels sealed.
private let sealedLimit = 4096
