import CrosspointCore

extension Switchboard {
  /// One exchange as one rank sees it.
  struct Transfer {
    let rank: Int
    let send: [UnsafeRawBufferPointer]
    let receive: [UnsafeMutableRawBufferPointer]
    let slack: Int
    let operation: StaticString
    let deadline: Duration
  }

  /// Lays out `send`, copies every block meant for this rank, and waits until the others have copied theirs.
  func exchange(
    _ transfer: Transfer, arrived: (_ source: Int) -> Void, meanwhile: () -> Bool
  ) throws(CrosspointError) {
    let rank = transfer.rank
    monitor.lock()
    defer { monitor.unlock() }
    if let end = desks[rank].end { throw end }
    let start = ContinuousClock.now
    var limit = start + transfer.deadline
    desks[rank].begun += 1
    desks[rank].postedAt = start
    desks[rank].blocks = transfer.send
    monitor.broadcast()

    var portFree = start
    var hasWork = true
    while true {
      let now = ContinuousClock.now
      let next = nextArrival(at: rank, portFree: portFree)
      if let next, next.time <= now {
        portFree = next.time
        try copy(from: next.source, transfer)
        monitor.unlock()
        arrived(next.source)
        monitor.lock()
        continue
      }
      guard let missing = missing(to: rank) else { break }
      if let end = desks[missing].end { throw leave(rank, end) }
      if hasWork {
        monitor.unlock()
        hasWork = meanwhile()
        monitor.lock()
        // Its own time is nobody's silence.
        limit += .now - now
        continue
      }
      if now >= limit { throw leave(rank, silence(transfer)) }
      monitor.wait(until: next.map { min(limit, $0.time) } ?? limit)
    }
    desks[rank].blocks = []
  }

  /// The posted block that reaches `receiver` first, and when.
  private func nextArrival(
    at receiver: Int, portFree: ContinuousClock.Instant
  ) -> (source: Int, time: ContinuousClock.Instant)? {
    var best: (source: Int, time: ContinuousClock.Instant)?
    for source in desks.indices where isPosted(source, for: receiver) {
      let time = departure(from: source, to: receiver)
      if best.map({ time < $0.time }) ?? true { best = (source, time) }
    }
    guard let link, let found = best, found.source != receiver else { return best }
    let busy = link.transmission(of: bytes(from: found.source, to: receiver))
    return (found.source, max(found.time, portFree + busy))
  }

  /// When the last byte of a posted block would arrive at an idle port.
  private func departure(from source: Int, to receiver: Int) -> ContinuousClock.Instant {
    let desk = desks[source]
    guard let link, source != receiver, bytes(from: source, to: receiver) > 0 else { return desk.postedAt }
    var queued = 0
    var target = source
    repeat {
      target = (target + 1) % desks.count
      queued += bytes(from: source, to: target)
    } while target != receiver
    return desk.postedAt + link.latency + link.transmission(of: queued)
  }

  /// What `source` has posted for `receiver`.
  private func bytes(from source: Int, to receiver: Int) -> Int {
    let share = desks[source].blocks.count / desks.count
    return (0..<share).reduce(0) { $0 + desks[source].blocks[receiver * share + $1].count }
  }

  /// Copies the blocks of `source` and marks them taken. The lock is held, but not during the copy.
  private func copy(from source: Int, _ transfer: Transfer) throws(CrosspointError) {
    let rank = transfer.rank
    let share = transfer.receive.count / desks.count
    let isExpected =
      desks[source].blocks.count == transfer.receive.count
      && (0..<share).allSatisfy {
        let most = transfer.receive[source * share + $0].count
        return (most - transfer.slack...most).contains(desks[source].blocks[rank * share + $0].count)
      }
    guard isExpected else {
      let sent = bytes(from: source, to: rank)
      let expected = transfer.receive[source * share..<(source + 1) * share].reduce(0) { $0 + $1.count }
      throw leave(
        rank,
        CrosspointError(
          .truncatedFrame, operation: transfer.operation.description, rank: source, argument: "receive",
          "it sends \(sent) bytes to rank \(rank), which expects \(expected): counts and data disagree"))
    }
    desks[source].readers += 1
    for index in 0..<share {
      let block = desks[source].blocks[rank * share + index]
      monitor.unlock()
      transfer.receive[source * share + index].copyMemory(from: block)
      monitor.lock()
    }
    desks[source].readers -= 1
    desks[source].taken[rank] = desks[rank].begun
    if desks[source].readers == 0 { monitor.broadcast() }
  }

  private func isPosted(_ source: Int, for receiver: Int) -> Bool {
    let exchange = desks[receiver].begun
    return desks[source].begun == exchange && desks[source].taken[receiver] < exchange && !desks[source].blocks.isEmpty
  }

  /// A rank that `rank` still waits for: one that has ended, if any.
  private func missing(to rank: Int) -> Int? {
    var missing: Int?
    for other in desks.indices where isMissing(other, to: rank) {
      if desks[other].end != nil { return other }
      missing = missing ?? other
    }
    return missing
  }

  /// Whether `other` has yet to send its block to `rank` or to take the one of `rank`.
  private func isMissing(_ other: Int, to rank: Int) -> Bool {
    let exchange = desks[rank].begun
    return desks[other].taken[rank] < exchange || desks[rank].taken[other] < exchange
  }

  /// The deadline has passed: names the ranks that have not even begun this exchange or, failing that, not finished it.
  private func silence(_ transfer: Transfer) -> CrosspointError {
    let rank = transfer.rank
    let missing = desks.indices.filter { isMissing($0, to: rank) }
    let absent = missing.filter { desks[$0].begun < desks[rank].begun }
    let silent = absent.isEmpty ? missing : absent
    return CrosspointError(
      .deadlineExceeded, operation: transfer.operation.description, rank: silent.first, argument: "deadline",
      "no answer within \(transfer.deadline) from \(silent.count == 1 ? "rank" : "ranks") "
        + silent.map(String.init).joined(separator: ", ") + ": see what holds them up, or raise the deadline")
  }
}
