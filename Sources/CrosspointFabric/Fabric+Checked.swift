import CrosspointCore

extension Fabric {
  /// Exchanges the blocks of the ``collectiveMemory``, large ones, one for every rank, each with its checksum behind it.
  /// Collective.
  ///
  /// - Returns: `corruptFrame` with the lowest rank whose block came damaged; `nil` if none did. This rank alone knows: it
  ///   is for the caller to settle once its exchanges are over.
  func exchangeChecked(operation: StaticString) throws(CrosspointError) -> CrosspointError? {
    let memory = collectiveMemory
    let (sent, received) = try memory.takeChecksums(ranks: rankCount, operation: operation)
    for peer in 0..<rankCount { sent[peer] = checksum(memory.send[peer]) }
    memory.pairBlocks(with: sent, received)
    try exchange(send: memory.pairedSend, receive: memory.pairedReceive, operation: operation)
    for peer in 0..<rankCount {
      let block = UnsafeRawBufferPointer(memory.receive[peer])
      guard checksum(block) != received[peer] else { continue }
      return CrosspointError(
        .corruptFrame, operation: operation.description, rank: peer, argument: "block",
        "\(block.count) bytes from rank \(peer) came to rank \(rank) damaged: suspect memory or network")
    }
    return nil
  }
}
