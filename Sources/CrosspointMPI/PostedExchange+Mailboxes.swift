import CrosspointCore
import CrosspointFabric

extension PostedExchange {
  /// Leaves a rank that shares memory with this one its blocks, or word of how they come. False: it has not yet read what was
  /// left in the mailbox before.
  func fillMailbox(of peer: Int) -> Bool {
    let isNext = !fabric.underWay.contains { $0.number < number && $0.sources[peer].isUnfilled }
    guard isNext, let mailbox = fabric.node.nodePeers[peer]?.sent(number), mailbox.isFree else { return false }
    let own = blocks(of: peer)
    sources[peer].takes = mailbox.fill(send[own], exchange: number) { fabric.node.memory?.address(of: $0) }
    for (index, block) in own.enumerated() { sendsMessages[block] = mailbox.place(index) == .message }
    sources[peer].isUnfilled = false
    return true
  }

  /// Receives what a rank has left in its mailbox, and learns which messages will come from it. False: it has left nothing
  /// yet.
  /// - Throws: if its blocks are not those that are expected; nothing else is wrong then.
  func readMailbox(of peer: Int) throws(CrosspointError) -> Bool {
    guard let mailbox = fabric.node.nodePeers[peer]?.received(number), mailbox.isFilled(number) else { return false }
    defer { mailbox.take(number) }
    sources[peer].isKnown = true
    let places = blocks(of: peer)
    guard mailbox.count == places.count else {
      sources[peer].done = -1
      throw truncated(peer, "\(mailbox.count) blocks where rank \(rank) expects \(places.count)")
    }
    var offset = 0
    var fault: CrosspointError?
    for (index, place) in places.enumerated() {
      let length = mailbox.length(index)
      var bytes: UnsafeRawBufferPointer?
      receivesMessages[place] = false
      switch mailbox.place(index) {
      case .message:
        receivesMessages[place] = true
        continue
      case .here:
        bytes = mailbox.bytes(at: offset, length)
        offset += round(length, to: 8)
      case .address(let address):
        do throws(CrosspointError) {
          let base = try fabric.node.memory?.pointer(to: address, bytes: length, of: peer)
          bytes = UnsafeRawBufferPointer(start: base, count: length)
        } catch {
          fault = fault ?? error
        }
      }
      if let bytes, fits(length, receive[place]) {
        receive[place].copyMemory(from: bytes)
      } else {
        fault =
          fault ?? truncated(peer, "\(length) bytes where rank \(rank) expects \(receive[place].count)")
      }
    }
    sources[peer].chunks = messages(from: peer)
    if let fault {
      sources[peer].done = -1
      throw fault
    }
    return true
  }

  /// Whether a rank has taken out of this rank's memory what it was left the address of.
  func hasTaken(_ peer: Int) -> Bool { fabric.node.nodePeers[peer]?.sent(number).isTaken(number) ?? true }
}
