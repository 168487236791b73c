import CrosspointCore
import CrosspointFabric
import MPI

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#elseif canImport(Darwin)
  import Darwin
#endif

/// Polls without progress before the processor is offered to other ranks, which may share it. Measured: more of them cost
/// twice the time where four ranks share two cores, and gain nothing where each has its own.
private let spinsBeforeYield = 2
/// A rank that has not polled for so long did not run: it was stopped, or its processor was another's.
private let absence = Duration.milliseconds(500)
/// How often the program is asked whether a rank should wait on.
private let askInterval = Duration.milliseconds(50)
/// MPI guarantees tags up to 32767, which is the ``noticeTag``. One tag per exchange keeps a late message apart from this
/// exchange's.
private let tagCount = noticeTag

// Receives are not posted in advance. Each message is looked at first and received once its length is known to be right:
// Open MPI 4.1, given a message longer than the buffer, writes all of it before it reports the error. It also means that
// a block whose sender is late is never written after the deadline.
extension MPIFabric {
  public func exchange(
    send: [UnsafeRawBufferPointer], receive: [UnsafeMutableRawBufferPointer], slack: Int, operation: StaticString,
    arrived: (_ source: Int) -> Void, meanwhile: () -> Bool
  ) throws(CrosspointError) {
    precondition(
      send.count.isMultiple(of: rankCount) && send.count == receive.count,
      "\(send.count) blocks to send to and \(receive.count) to receive from \(rankCount) ranks")
    precondition(slack == 0 || send.count == rankCount, "one block for each rank, where lengths may differ")
    if let failure { throw failure }
    self.slack = slack
    do {
      let expiry = ContinuousClock.now + deadline
      sequence += 1
      let tag = sequence % tagCount
      for peer in 0..<rankCount { sources[peer] = Source(isKnown: node.nodePeers[peer] == nil) }
      fillMailboxes(send)
      group.removeAll()
      planMessages(send)
      // At once: whoever is kept by what follows has sent.
      _ = try startSends(send, tag, operation)
      for block in blocks(of: rank, send.count) { try copyOwnBlock(from: send[block], to: receive[block], operation) }
      for source in 0..<rankCount where sources[source].isKnown {
        if source != rank { sources[source].chunks = messages(from: source, into: receive) }
        if sources[source].isComplete { arrived(source) }
      }
      try drain(send, into: receive, tag, until: expiry, operation, arrived, meanwhile)
    } catch {
      // Those under way go on by themselves, and may use the memory of their blocks.
      for index in 0..<group.count { group.release(index) }
      failure = error
      node.memory?.fail()
      throw error
    }
  }

  /// The blocks of one rank among `count` of all.
  func blocks(of peer: Int, _ count: Int) -> Range<Int> {
    let share = count / rankCount
    return peer * share..<(peer + 1) * share
  }

  /// Messages that all blocks from a rank take at least.
  func messages(from source: Int, into receive: [UnsafeMutableRawBufferPointer]) -> Int {
    messages(source, receive.count, node.nodePeers[source]?.received(sequence)) { receive[$0].count - slack }
  }

  /// Whether a block of so many bytes may come where another is expected.
  func fits(_ bytes: Int, _ expected: UnsafeMutableRawBufferPointer) -> Bool {
    (expected.count - slack...expected.count).contains(bytes)
  }

  private func copyOwnBlock(
    from source: UnsafeRawBufferPointer, to target: UnsafeMutableRawBufferPointer, _ operation: StaticString
  ) throws(CrosspointError) {
    guard fits(source.count, target) else {
      throw truncated(rank, "\(source.count) bytes where it expects \(target.count)", operation)
    }
    target.copyMemory(from: source)
  }

  /// Receives what comes until everything is over, and works while nothing does. A wrong length is thrown once the rest is
  /// over too, so that MPI has let go of the memory, or at the deadline; the work ends at once.
  private func drain(
    _ send: [UnsafeRawBufferPointer], into receive: [UnsafeMutableRawBufferPointer], _ tag: Int,
    until expiry: ContinuousClock.Instant,
    _ operation: StaticString, _ arrived: (_ source: Int) -> Void, _ meanwhile: () -> Bool
  ) throws(CrosspointError) {
    var expiry = expiry
    var hasWork = true
    // Messages, mailboxes, messages to send and under way, and ranks that take blocks from here.
    var (awaited, unread, unsent, active, untaken) = (0, 0, 0, 0, 0)
    for source in sources {
      awaited += source.chunks
      unread += source.isKnown ? 0 : 1
      untaken += source.takes ? 1 : 0
      unsent += source.unsent
    }
    active = sendsUnderWay
    var idle = 0
    var fault: CrosspointError?
    var polled = ContinuousClock.now
    func read(_ peer: Int) {
      do throws(CrosspointError) {
        guard try readMailbox(of: peer, into: receive, operation) else { return }
      } catch {
        fault = fault ?? error
      }
      unread -= 1
      awaited += sources[peer].chunks
      idle = 0
      if sources[peer].isComplete { arrived(peer) }
    }
    while awaited > 0 || unread > 0 || unsent > 0 || active > 0 || untaken > 0 {
      idle += 1
      if idle == 1 { polled = .now }
      for peer in sources.indices where unread > 0 && !sources[peer].isKnown { read(peer) }
      for peer in sources.indices where untaken > 0 && sources[peer].takes && hasTaken(peer) {
        sources[peer].takes = false
        untaken -= 1
        idle = 0
      }
      if unsent > 0 {
        let started = try startSends(send, tag, operation)
        (unsent, active) = (unsent - started, active + started)
        if started > 0 { idle = 0 }
      }
      do {
        while awaited > 0, let arrival = try group.arrival(tag: tag) {
          if !sources[arrival.source].isKnown { read(arrival.source) }
          awaited -= sources[arrival.source].left
          let error = try accept(arrival, into: receive, operation)
          awaited += sources[arrival.source].left
          fault = fault ?? error
          active += 1
          idle = 0
        }
        let done = active == 0 ? 0 : try group.testSome { index in finish(transfers[index], arrived) }
        if done > 0 { idle = 0 }
        active -= done
      } catch {
        throw CrosspointError(error, operation: operation.description)
      }
      if idle > 0, hasWork, fault == nil {
        let start = ContinuousClock.now
        hasWork = meanwhile()
        // Its own time is nobody's silence, and what came in it is looked for before anybody is called silent.
        expiry += .now - start
        idle = 0
        continue
      }
      if idle > spinsBeforeYield {
        let now = ContinuousClock.now
        // Nor is its own absence: a rank that is woken has yet to see what came meanwhile.
        if now - polled > absence { expiry += now - polled }
        polled = now
        if now >= expiry { throw fault ?? expired(operation) }
        if now - asked > askInterval { try askWhetherToStop(now, operation) }
        if unsent > 0 { passOver(now) }
        sched_yield()
      }
    }
    if let fault { throw fault }
  }

  /// Starts to receive a message: to its place, or aside if its length is wrong. The error is returned then, and what else
  /// comes of that block goes aside too: its last message is shorter than the limit.
  private func accept(
    _ arrival: RequestGroup.Arrival, into receive: [UnsafeMutableRawBufferPointer], _ operation: StaticString
  ) throws(MPIError) -> CrosspointError? {
    let peer = arrival.source
    let source = sources[peer]
    let mailbox = node.nodePeers[peer]?.received(sequence)
    let limit = messageLimit(peer)
    // The block and the part of it that come next, and how many with it.
    var (chunk, left) = (source.started, 0)
    var (expected, before) = (0, 0)
    var place: UnsafeMutableRawBufferPointer?
    for block in blocks(of: peer, receive.count) {
      let count = messages(block, receive[block].count, receive.count, mailbox, limit: limit)
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
      note(try group.receive(arrival, into: place), Transfer(peer: peer, kind: .block))
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
    note(try group.receive(arrival, into: aside), Transfer(peer: peer, kind: .stray(aside)))
    let message = "\(before + arrival.byteCount) bytes or more where rank \(rank) expects \(expected)"
    return truncated(peer, message, operation)
  }

  private func finish(_ transfer: Transfer, _ arrived: (_ source: Int) -> Void) {
    switch transfer.kind {
    case .send: finishSend(to: transfer.peer)
    case .stray(let memory): free(memory.baseAddress)
    case .block:
      sources[transfer.peer].done += 1
      if sources[transfer.peer].isComplete { arrived(transfer.peer) }
    }
  }

  func truncated(_ sender: Int, _ sent: String, _ operation: StaticString) -> CrosspointError {
    CrosspointError(
      .truncatedFrame, operation: operation.description, rank: sender, argument: "block", "rank \(sender) sent \(sent)")
  }

  private func askWhetherToStop(_ now: ContinuousClock.Instant, _ operation: StaticString) throws(CrosspointError) {
    asked = now
    guard isInterrupted?() == true else { return }
    throw CrosspointError(
      .interrupted, operation: operation.description, rank: rank, argument: "isInterrupted",
      "the program asked to stop while rank \(rank) waited for others")
  }

  /// Names the ranks that have not sent; or, if all have, those that have not received.
  private func expired(_ operation: StaticString) -> CrosspointError {
    var silent = sources.indices.filter { !sources[$0].isComplete }
    let verb = silent.isEmpty ? "receive from" : "send to"
    if silent.isEmpty {
      silent = sources.indices.filter { sources[$0].sending > 0 || sources[$0].takes }
    }
    let names = silent.map(String.init).joined(separator: ", ")
    return CrosspointError(
      .deadlineExceeded, operation: operation.description, rank: silent.first, argument: "deadline",
      "rank\(silent.count == 1 ? "" : "s") \(names) did not \(verb) rank \(rank) within \(deadline)")
  }
}
