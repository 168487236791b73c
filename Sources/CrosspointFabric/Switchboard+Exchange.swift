import CrosspointCore

extension Switchboard {
  /// Copies every block meant for a rank in one of its exchanges, and waits until all of its own have been copied.
  func finish(
    _ number: Int, of rank: Int, within deadline: Duration,
    arrived: (_ source: Int, _ blocks: ArraySlice<UnsafeMutableRawBufferPointer>) -> Void, meanwhile: () -> Bool
  ) throws(CrosspointError) {
    monitor.lock()
    defer { monitor.unlock() }
    if let end = desks[rank].end { throw end }
    guard let post = desks[rank].post(number) else { preconditionFailure("exchange \(number) is not under way") }
    var limit = ContinuousClock.now + deadline
    var hasWork = true
    desks[rank].finishing = number
    defer { desks[rank].finishing = 0 }
    while true {
      if let end = desks[rank].end { throw end }
      while let source = post.got.indices.first(where: { post.got[$0] && !post.reported[$0] }) {
        post.reported[source] = true
        let share = post.receive.count / desks.count
        monitor.unlock()
        arrived(source, post.receive[source * share..<(source + 1) * share])
        monitor.lock()
        hasWork = true
      }
      let now = ContinuousClock.now
      let next = nextCopy(post, of: rank)
      if let next, next.time <= now {
        try copy(next, post, of: rank)
        continue
      }
      guard let missing = missing(post, to: rank) else { break }
      if let end = desks[missing].end { throw leave(rank, end) }
      if hasWork {
        desks[rank].finishing = 0
        monitor.unlock()
        hasWork = meanwhile()
        monitor.lock()
        desks[rank].finishing = number
        // Its own time is nobody's silence.
        limit += .now - now
        continue
      }
      if now >= limit { throw leave(rank, silence(post, of: rank, deadline)) }
      monitor.wait(until: next.map { min(limit, $0.time) } ?? limit)
    }
    remove(post, of: rank)
  }

  /// A copy that can be made once its bytes have come: to a rank, or from it to one that does something else.
  private struct Copy {
    let source: Int
    let receiver: Int
    let time: ContinuousClock.Instant
  }

  /// The copy that comes first of those that are a rank's to make in an exchange.
  private func nextCopy(_ post: Post, of rank: Int) -> Copy? {
    var best: Copy?
    func consider(_ source: Int, _ receiver: Int, _ sent: Post, _ received: Post) {
      guard !sent.given[receiver] else { return }
      var time = sent.departure
      if let link, source != receiver {
        let bytes = sent.bytes(to: receiver)
        if bytes > 0 { time += link.latency + link.transmission(of: sent.bytes(upTo: receiver, from: source)) }
        time = max(time, received.arrival + link.transmission(of: bytes))
      }
      if best.map({ time < $0.time }) ?? true { best = Copy(source: source, receiver: receiver, time: time) }
    }
    for other in desks.indices {
      guard let others = desks[other].post(post.number) else { continue }
      consider(other, rank, others, post)
      // One that does not fit is found by its receiver.
      if other != rank, desks[other].finishing != post.number, isExpected(post, rank, others, other) {
        consider(rank, other, post, others)
      }
    }
    return best
  }

  /// Whether what a rank sends is what a receiver expects.
  private func isExpected(_ sent: Post, _ source: Int, _ received: Post, _ receiver: Int) -> Bool {
    let (blocks, places) = (sent.send, received.receive)
    let share = places.count / desks.count
    return blocks.count == places.count
      && (0..<share).allSatisfy {
        let most = places[source * share + $0].count
        return (most - received.slack...most).contains(blocks[receiver * share + $0].count)
      }
  }

  /// Makes a copy for `rank`. The lock is held, but not during the copy.
  private func copy(_ copy: Copy, _ post: Post, of rank: Int) throws(CrosspointError) {
    let (source, receiver) = (copy.source, copy.receiver)
    let (sent, received) = (desks[source].post(post.number)!, desks[receiver].post(post.number)!)
    guard isExpected(sent, source, received, receiver) else {
      let share = received.receive.count / desks.count
      let expected = received.receive[source * share..<(source + 1) * share].reduce(0) { $0 + $1.count }
      throw leave(
        rank,
        CrosspointError(
          .truncatedFrame, operation: post.operation.description, rank: source, argument: "receive",
          "it sends \(sent.bytes(to: rank)) bytes to rank \(rank), which expects \(expected): counts and data disagree")
      )
    }
    sent.given[receiver] = true
    received.arrival = max(received.arrival, copy.time)
    desks[source].copies += 1
    desks[receiver].copies += 1
    let share = sent.send.count / desks.count
    monitor.unlock()
    for index in 0..<share {
      received.receive[source * share + index].copyMemory(from: sent.send[receiver * share + index])
    }
    monitor.lock()
    desks[source].copies -= 1
    desks[receiver].copies -= 1
    sent.taken[receiver] = true
    received.got[source] = true
    monitor.broadcast()
  }

  /// A rank that `rank` still waits for in an exchange: one that has ended, if any.
  private func missing(_ post: Post, to rank: Int) -> Int? {
    var missing: Int?
    for other in desks.indices where !post.got[other] || !post.taken[other] {
      if desks[other].end != nil { return other }
      missing = missing ?? other
    }
    return missing
  }

  /// The deadline has passed: names the ranks that have not even begun this exchange or, failing that, not finished it.
  private func silence(_ post: Post, of rank: Int, _ deadline: Duration) -> CrosspointError {
    let missing = desks.indices.filter { !post.got[$0] || !post.taken[$0] }
    let absent = missing.filter { desks[$0].begun < post.number }
    let silent = absent.isEmpty ? missing : absent
    return CrosspointError(
      .deadlineExceeded, operation: post.operation.description, rank: silent.first, argument: "deadline",
      "no answer within \(deadline) from \(silent.count == 1 ? "rank" : "ranks") "
        + silent.map(String.init).joined(separator: ", ") + ": see what holds them up, or raise the deadline")
  }
}

extension Switchboard.Post {
  /// What a rank sends up to a receiver: to the next rank first.
  fileprivate func bytes(upTo receiver: Int, from source: Int) -> Int {
    var (bytes, target) = (0, source)
    repeat {
      target = (target + 1) % given.count
      bytes += self.bytes(to: target)
    } while target != receiver
    return bytes
  }
}
