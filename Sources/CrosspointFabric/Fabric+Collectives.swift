import CrosspointCore

/// Collectives for every fabric, written once over `exchange`, so that MPI and the simulated cluster give the same bits.
///
/// All are collective: every rank must call them in the same order with the same sizes. All throw what `exchange` throws;
/// a rank whose size differs is caught as ``CrosspointError/Code/truncatedFrame``. One rank alone communicates nothing.
extension Fabric {
  /// Collects one block of equal size from every rank: `all` holds rank 0's block, then rank 1's, and so on. Collective.
  ///
  /// Allocates nothing but the two arrays of blocks that `exchange` takes.
  ///
  /// - Parameters:
  ///   - mine: this rank's block; the same size on every rank.
  ///   - all: `rankCount · mine.count` bytes; must not overlap `mine`.
  public func allgather(
    _ mine: UnsafeRawBufferPointer, into all: UnsafeMutableRawBufferPointer, operation: StaticString
  ) throws(CrosspointError) {
    precondition(all.count == rankCount * mine.count, "\(all.count) bytes for \(rankCount) blocks of \(mine.count)")
    guard rankCount > 1 else { return all.copyMemory(from: mine) }
    let size = mine.count
    let receive = (0..<rankCount).map { UnsafeMutableRawBufferPointer(rebasing: all[$0 * size..<($0 + 1) * size]) }
    try exchange(send: Array(repeating: mine, count: rankCount), receive: receive, operation: operation)
  }

  /// Copies `bytes` of rank `root` over `bytes` of every other rank. Collective.
  ///
  /// The root sends to each rank in turn: meant for configuration and checkpoints, not for the training loop.
  public func broadcast(
    _ bytes: UnsafeMutableRawBufferPointer, from root: Int, operation: StaticString
  ) throws(CrosspointError) {
    precondition(root >= 0 && root < rankCount, "root \(root) of \(rankCount) ranks")
    guard rankCount > 1 else { return }
    let nothing = UnsafeMutableRawBufferPointer(start: nil, count: 0)
    var send = Array(repeating: UnsafeRawBufferPointer(nothing), count: rankCount)
    var receive = Array(repeating: nothing, count: rankCount)
    if rank == root {
      for other in 0..<rankCount where other != root { send[other] = UnsafeRawBufferPointer(bytes) }
    } else {
      receive[root] = bytes
    }
    try exchange(send: send, receive: receive, operation: operation)
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
