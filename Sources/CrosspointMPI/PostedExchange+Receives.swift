import CrosspointCore
import MPI

// Receives are not posted in advance. Each message is looked at first and received once its length is known to be right:
// Open MPI 4.1, given a message longer than the buffer, writes all of it before it reports the error. It also means that
// a block whose sender is late is never written after the deadline.
extension PostedExchange {
  /// Messages that all blocks from a rank take at least.
  func messages(from source: Int) -> Int { messages(source, receivesMessages) { receive[$0].count - slack } }

  /// Starts to receive a message: to its place, or aside if its length is wrong. The error is returned then, and what else
  /// comes of that block goes aside too: its last message is shorter than the limit.
  func accept(_ arrival: RequestGroup.Arrival) throws(MPIError) -> CrosspointError? {
    let peer = arrival.source
    let source = sources[peer]
    let limit = fabric.messageLimit(peer)
    // The block and the part of it that come next, and how many with it.
    var (chunk, left) = (source.started, 0)
    var (expected, before) = (0, 0)
    var place: UnsafeMutableRawBufferPointer?
    for block in blocks(of: peer) {
      let count = messages(block, receive[block].count, receivesMessages, limit: limit)
      expected += receive[block].count
      if place == nil { before += min(receive[block].count, chunk * limit) }
      if place == nil, chunk < count {
        let range = Chunks(bytes: receive[block].count, limit: limit).range(chunk)
        place = UnsafeMutableRawBufferPointer(rebasing: receive[block][range])
        left = count - chunk
      }
      chunk -= count
    }
    if slack > 0 {
      // A message of full length is followed by another; the first that is shorter ends the block.
      left = source.left
      if arrival.byteCount == limit {
        if left == 1 { sources[peer].chunks += 1 }
      } else if fits(before + arrival.byteCount, receive[peer]) {
        place = place.map { UnsafeMutableRawBufferPointer(rebasing: $0.prefix(arrival.byteCount)) }
      } else {
        place = nil
      }
    }
    if !source.discardsBlock, let place, place.count == arrival.byteCount {
      sources[peer].started += 1
      note(try group.receive(arrival, into: place), Message(peer: peer, kind: .block))
      return nil
    }
    sources[peer].discardsBlock = arrival.byteCount == limit
    if !sources[peer].discardsBlock { sources[peer].started += left }
    let aside: UnsafeMutableRawBufferPointer
    do throws(CrosspointError) {
      aside = try takeMemory(bytes: arrival.byteCount, operation: operation.description, argument: "block")
    } catch {
      return error
    }
    note(try group.receive(arrival, into: aside), Message(peer: peer, kind: .stray(aside)))
    return truncated(peer, "\(before + arrival.byteCount) bytes or more where rank \(rank) expects \(expected)")
  }

  /// Remembers what a message of MPI is.
  func note(_ index: Int, _ message: Message) {
    if index == posted.count {
      posted.append(message)
    } else {
      posted[index] = message
    }
  }
}
