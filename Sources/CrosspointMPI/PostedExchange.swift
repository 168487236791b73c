import CrosspointCore
import CrosspointFabric
import Glibc
import MPI

/// An exchange that has been begun and not been finished: what is on its way to every rank, and from it.
///
/// Used again for later exchanges, so that none allocates.
final class PostedExchange {
  unowned let fabric: MPIFabric
  let group: RequestGroup
  /// One for each message of `group`.
  @exclusivity(unchecked) var posted: [Message] = []
  /// How far it is with each rank.
  let sources: UnsafeMutableBufferPointer<Source>

  private(set) var number = 0
  private(set) var send: [UnsafeRawBufferPointer] = []
  private(set) var receive: [UnsafeMutableRawBufferPointer] = []
  /// Bytes that blocks may have fewer than is expected.
  private(set) var slack = 0
  private(set) var operation: StaticString = ""
  /// For each block, whether it goes, or comes, in messages, as far as is known: mailboxes have or name the others.
  @exclusivity(unchecked) var sendsMessages: [Bool] = []
  @exclusivity(unchecked) var receivesMessages: [Bool] = []

  /// Messages that have yet to come, as far as is known; mailboxes to read and to fill; messages to send and under way, the
  /// latter either way; ranks that have yet to take blocks from here.
  private(set) var (awaited, unread, unfilled, unsent, active, untaken) = (0, 0, 0, 0, 0, 0)
  /// Messages that this rank sends at the moment, without those to ranks that are passed over.
  var sendsUnderWay = 0
  /// What is wrong with what has come. It is thrown once the rest is over too, so that MPI has let go of the memory, or at the
  /// deadline.
  private(set) var fault: CrosspointError?

  init(on fabric: MPIFabric) {
    self.fabric = fabric
    let ranks = fabric.rankCount
    group = RequestGroup(on: fabric.communicator, capacity: 4 * ranks)
    sources = .allocate(capacity: ranks)
    sources.initialize(repeating: Source())
    posted.reserveCapacity(4 * ranks)
  }

  deinit { sources.deallocate() }

  var rank: Int { fabric.rank }
  var rankCount: Int { fabric.rankCount }
  /// MPI guarantees tags up to 32767, which is the ``noticeTag``. One tag per exchange keeps a late message apart from this
  /// exchange's.
  var tag: Int { number % noticeTag }
  var isOver: Bool { awaited == 0 && unread == 0 && unfilled == 0 && unsent == 0 && active == 0 && untaken == 0 }

  /// Takes an exchange on.
  func begin(
    _ number: Int, _ send: [UnsafeRawBufferPointer], _ receive: [UnsafeMutableRawBufferPointer], _ slack: Int,
    _ operation: StaticString
  ) throws(CrosspointError) {
    (self.number, self.send, self.receive, self.slack, self.operation) = (number, send, receive, slack, operation)
    (awaited, unread, unfilled, unsent, active, untaken, sendsUnderWay) = (0, 0, 0, 0, 0, 0, 0)
    fault = nil
    group.removeAll()
    sendsMessages.refill(with: true, count: send.count)
    receivesMessages.refill(with: true, count: send.count)
    for peer in 0..<rankCount {
      let hasMailbox = fabric.node.nodePeers[peer] != nil
      sources[peer] = Source(isKnown: !hasMailbox, isUnfilled: hasMailbox)
      if peer == rank { continue }
      if hasMailbox {
        unread += 1
        unfilled += 1
      } else {
        planMessages(to: peer)
        sources[peer].chunks = messages(from: peer)
        awaited += sources[peer].chunks
      }
    }
    for block in blocks(of: rank) {
      guard fits(send[block].count, receive[block]) else {
        throw truncated(rank, "\(send[block].count) bytes where it expects \(receive[block].count)")
      }
      receive[block].copyMemory(from: send[block])
    }
  }

  /// Forgets whose memory it used.
  func end() { (send, receive) = ([], []) }

  /// Lets go of the messages under way: they go on by themselves, and may use the memory of their blocks.
  func abandon() {
    for index in 0..<group.count { group.release(index) }
  }

  /// The blocks of one rank among those of all.
  func blocks(of peer: Int) -> Range<Int> {
    let share = send.count / rankCount
    return peer * share..<(peer + 1) * share
  }

  /// Whether a block of so many bytes may come where another is expected.
  func fits(_ bytes: Int, _ expected: UnsafeMutableRawBufferPointer) -> Bool {
    (expected.count - slack...expected.count).contains(bytes)
  }

  func truncated(_ sender: Int, _ sent: String) -> CrosspointError {
    CrosspointError(
      .truncatedFrame, operation: operation.description, rank: sender, argument: "block", "rank \(sender) sent \(sent)")
  }

  /// Counts the messages to a rank, once it is known which blocks take any.
  func planMessages(to peer: Int) {
    sources[peer].nextBlock = blocks(of: peer).lowerBound
    sources[peer].unsent = messages(peer, sendsMessages) { send[$0].count }
    unsent += sources[peer].unsent
  }

  /// Lets it go on as far as it can without waiting. Whether anything has moved.
  func progress() throws(CrosspointError) -> Bool {
    var hasMoved = false
    if unfilled > 0 {
      for peer in sources.indices where sources[peer].isUnfilled && fillMailbox(of: peer) {
        unfilled -= 1
        untaken += sources[peer].takes ? 1 : 0
        planMessages(to: peer)
        hasMoved = true
      }
    }
    if unread > 0 {
      for peer in sources.indices where !sources[peer].isKnown && read(peer) { hasMoved = true }
    }
    if untaken > 0 {
      for peer in sources.indices where sources[peer].takes && hasTaken(peer) {
        sources[peer].takes = false
        untaken -= 1
        hasMoved = true
      }
    }
    do {
      if unsent > 0 {
        let started = try startSends()
        (unsent, active) = (unsent - started, active + started)
        if started > 0 { hasMoved = true }
      }
      while awaited > 0, let arrival = try group.arrival(tag: tag) {
        if !sources[arrival.source].isKnown { _ = read(arrival.source) }
        awaited -= sources[arrival.source].left
        let error = try accept(arrival)
        awaited += sources[arrival.source].left
        fault = fault ?? error
        active += 1
        hasMoved = true
      }
      let done = active == 0 ? 0 : try group.testSome { finish(posted[$0]) }
      active -= done
      return hasMoved || done > 0
    } catch {
      throw CrosspointError(error, operation: operation.description)
    }
  }

  /// Reads the mailbox of a rank, if it has been filled.
  private func read(_ peer: Int) -> Bool {
    do throws(CrosspointError) {
      guard try readMailbox(of: peer) else { return false }
    } catch {
      fault = fault ?? error
    }
    unread -= 1
    awaited += sources[peer].chunks
    return true
  }

  private func finish(_ message: Message) {
    switch message.kind {
    case .send: finishSend(to: message.peer)
    case .stray(let memory): free(memory.baseAddress)
    case .block: sources[message.peer].done += 1
    }
  }

  /// Calls `arrived` with each rank that has become complete since the last time; returns whether any has.
  func reportArrivals(_ arrived: (_ source: Int) -> Void) -> Bool {
    var hasAny = false
    for peer in sources.indices where sources[peer].isComplete && !sources[peer].isReported {
      sources[peer].isReported = true
      arrived(peer)
      hasAny = true
    }
    return hasAny
  }

  /// Names the ranks that have not sent; or, if all have, those that have not received.
  func expired() -> CrosspointError {
    var silent = sources.indices.filter { !sources[$0].isComplete }
    let verb = silent.isEmpty ? "receive from" : "send to"
    if silent.isEmpty {
      silent = sources.indices.filter { sources[$0].sending > 0 || sources[$0].takes || sources[$0].isUnfilled }
    }
    let names = silent.map(String.init).joined(separator: ", ")
    return CrosspointError(
      .deadlineExceeded, operation: operation.description, rank: silent.first, argument: "deadline",
      "rank\(silent.count == 1 ? "" : "s") \(names) did not \(verb) rank \(rank) within \(fabric.deadline)")
  }
}
