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
}

extension PostedExchange {
  /// Messages that a block takes: at least one for a rank's first block, none for an empty one behind it, nor for one that
  /// a mailbox has or names.
  func messages(_ block: Int, _ bytes: Int, _ takesMessages: [Bool], limit: Int) -> Int {
    let isFirst = block.isMultiple(of: send.count / rankCount)
    return !takesMessages[block] || bytes == 0 && !isFirst ? 0 : Chunks(bytes: bytes, limit: limit).count
  }

  /// Messages that all blocks between this rank and another take.
  func messages(_ peer: Int, _ takesMessages: [Bool], bytes: (_ block: Int) -> Int) -> Int {
    let limit = fabric.messageLimit(peer)
    return blocks(of: peer).reduce(0) { $0 + messages($1, bytes($1), takesMessages, limit: limit) }
  }

  /// Starts as many sends as may be under way, and returns how many.
  func startSends() throws(MPIError) -> Int {
    var started = 0
    for step in 1..<max(1, rankCount) {
      let peer = (rank + step) % rankCount
      while sources[peer].unsent > 0, !sources[peer].isPassedOver {
        guard sendsUnderWay < window else { return started }
        note(try group.send(nextMessage(to: peer), to: peer, tag: tag), Message(peer: peer, kind: .send))
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
  private func nextMessage(to peer: Int) -> UnsafeRawBufferPointer {
    let limit = fabric.messageLimit(peer)
    while true {
      let (block, chunk) = (sources[peer].nextBlock, sources[peer].nextChunk)
      if chunk < messages(block, send[block].count, sendsMessages, limit: limit) {
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
}
