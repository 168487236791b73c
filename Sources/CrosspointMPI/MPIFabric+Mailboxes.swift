import CrosspointCore
import CrosspointFabric

extension MPIFabric {
  /// Leaves every rank that shares memory with this one its blocks, or word of how they come.
  func fillMailboxes(_ send: [UnsafeRawBufferPointer]) {
    for peer in 0..<rankCount {
      guard let mailbox = node.nodePeers[peer]?.sent(sequence) else { continue }
      sources[peer].takes = mailbox.fill(send[blocks(of: peer, send.count)], exchange: sequence) {
        node.memory?.address(of: $0)
      }
    }
  }

  /// Receives what a rank has left in its mailbox, and learns which messages will come from it. False: it has left nothing
  /// yet.
  /// - Throws: if its blocks are not those that are expected; nothing else is wrong then.
  func readMailbox(
    of peer: Int, into receive: [UnsafeMutableRawBufferPointer], _ operation: StaticString
  ) throws(CrosspointError) -> Bool {
    guard let mailbox = node.nodePeers[peer]?.received(sequence), mailbox.isFilled(sequence) else { return false }
    sources[peer].isKnown = true
    let places = blocks(of: peer, receive.count)
    guard mailbox.count == places.count else {
      sources[peer].done = -1
      mailbox.take(sequence)
      throw truncated(peer, "\(mailbox.count) blocks where rank \(rank) expects \(places.count)", operation)
    }
    sources[peer].chunks = messages(from: peer, into: receive)
    var (offset, isNamed) = (0, false)
    var fault: CrosspointError?
    for (index, place) in places.enumerated() {
      let length = mailbox.length(index)
      var bytes: UnsafeRawBufferPointer?
      switch mailbox.place(index) {
      case .message: continue
      case .here:
        bytes = mailbox.bytes(at: offset, length)
        offset += round(length, to: 8)
      case .address(let address):
        isNamed = true
        do throws(CrosspointError) {
          let base = try node.memory?.pointer(to: address, bytes: length, of: peer)
          bytes = UnsafeRawBufferPointer(start: base, count: length)
        } catch {
          fault = fault ?? error
        }
      }
      if let bytes, fits(length, receive[place]) {
        receive[place].copyMemory(from: bytes)
      } else {
        fault =
          fault
          ?? truncated(
            peer, "\(length) bytes where rank \(rank) expects \(receive[place].count)", operation)
      }
    }
    if isNamed { mailbox.take(sequence) }
    if let fault {
      sources[peer].done = -1
      throw fault
    }
    return true
  }

  /// Whether a rank has taken out of this rank's memory what it was left the address of.
  func hasTaken(_ peer: Int) -> Bool { node.nodePeers[peer]?.sent(sequence).isTaken(sequence) ?? true }
}
