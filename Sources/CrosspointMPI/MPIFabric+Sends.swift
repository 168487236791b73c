import CrosspointCore
import CrosspointFabric
import MPI

/// Bytes of a message to another node: below what MPI's transports send at once (64 KiB over TCP in Open MPI 4.1), so that
/// none waits for its receiver's answer behind that one's own bytes.
private let networkMessage = 32 << 10
/// Messages under way to other ranks at a time: enough to fill a link, too few for two ranks to crowd a third's.
private let window = 8
/// A rank that has taken nothing for so long is passed over for the next.
private let patience = Duration.milliseconds(50)

// A port that two ranks send to at once takes turns between them and, where it must drop, wakes both up late: four ranks
// that send to all others at once get half of their links. So ranks send in rounds, in step s to the rank s behind them,
// and go on to the next as soon as the last message of a round is under way. No clock and no barrier keeps them in step.
extension MPIFabric {
  /// The most bytes of a message between this rank and another.
  func messageLimit(_ peer: Int) -> Int {
    node.isHere(peer) ? chunkLimit : min(chunkLimit, networkMessage)
  }

  /// Messages that a block takes: at least one for a rank's first block, none for an empty one behind it, nor for one that
  /// a mailbox has or names.
  func messages(_ block: Int, _ bytes: Int, _ count: Int, _ mailbox: Mailbox?, limit: Int) -> Int {
    let (isFirst, index) = (block.isMultiple(of: count / rankCount), block % (count / rankCount))
    if let mailbox, mailbox.place(index) != .message { return 0 }
    return bytes == 0 && !isFirst ? 0 : Chunks(bytes: bytes, limit: limit).count
  }

  /// Messages that all blocks between this rank and another take, of `count` of all ranks.
  func messages(_ peer: Int, _ count: Int, _ mailbox: Mailbox?, bytes: (_ block: Int) -> Int) -> Int {
    let limit = messageLimit(peer)
    return blocks(of: peer, count).reduce(0) { $0 + messages($1, bytes($1), count, mailbox, limit: limit) }
  }

  /// Counts the messages to every rank.
  func planMessages(_ send: [UnsafeRawBufferPointer]) {
    sendsUnderWay = 0
    for peer in 0..<rankCount where peer != rank {
      sources[peer].nextBlock = blocks(of: peer, send.count).lowerBound
      sources[peer].unsent = messages(peer, send.count, node.nodePeers[peer]?.sent(sequence)) { send[$0].count }
    }
  }

  /// Starts as many sends as may be under way, and returns how many.
  func startSends(
    _ send: [UnsafeRawBufferPointer], _ tag: Int, _ operation: StaticString
  ) throws(CrosspointError) -> Int {
    var started = 0
    for step in 1..<max(1, rankCount) {
      let peer = (rank + step) % rankCount
      while sources[peer].unsent > 0, !sources[peer].isPassedOver {
        guard sendsUnderWay < window else { return started }
        do {
          note(try group.send(nextMessage(to: peer, send), to: peer, tag: tag), Transfer(peer: peer, kind: .send))
        } catch {
          throw CrosspointError(error, operation: operation.description)
        }
        sources[peer].unsent -= 1
        sources[peer].sending += 1
        sources[peer].sent = .now
        sendsUnderWay += 1
        started += 1
      }
    }
    return started
  }

  /// The next part of a rank's blocks.
  private func nextMessage(to peer: Int, _ send: [UnsafeRawBufferPointer]) -> UnsafeRawBufferPointer {
    let (mailbox, limit) = (node.nodePeers[peer]?.sent(sequence), messageLimit(peer))
    while true {
      let (block, chunk) = (sources[peer].nextBlock, sources[peer].nextChunk)
      if chunk < messages(block, send[block].count, send.count, mailbox, limit: limit) {
        sources[peer].nextChunk += 1
        return UnsafeRawBufferPointer(
          rebasing: send[block][Chunks(bytes: send[block].count, limit: limit).range(chunk)])
      }
      (sources[peer].nextBlock, sources[peer].nextChunk) = (block + 1, 0)
    }
  }

  func finishSend(to peer: Int) {
    sources[peer].sending -= 1
    sources[peer].sent = .now
    sendsUnderWay -= 1
    guard sources[peer].isPassedOver else { return }
    sources[peer].isPassedOver = false
    sendsUnderWay += sources[peer].sending + 1
  }

  /// Lets the messages to ranks that take none hold up nobody else's.
  func passOver(_ now: ContinuousClock.Instant) {
    for peer in sources.indices
    where sources[peer].sending > 0 && !sources[peer].isPassedOver && now - sources[peer].sent > patience {
      sources[peer].isPassedOver = true
      sendsUnderWay -= sources[peer].sending
    }
  }

  /// Remembers what a message of MPI is.
  func note(_ index: Int, _ transfer: Transfer) {
    if index == transfers.count {
      transfers.append(transfer)
    } else {
      transfers[index] = transfer
    }
  }
}
