import CrosspointCore

/// What the ranks of a simulated cluster share: a desk per rank, where it lays out its blocks for the others to copy.
///
/// Every copy is made once, by its receiver, outside the lock. A rank clears its desk only when nobody reads from it any
/// more, in success and in failure. All fields are guarded by `monitor`.
final class Switchboard: @unchecked Sendable {
  struct Desk {
    /// Exchanges this rank has begun.
    var begun = 0
    /// Blocks of the exchange under way, as many per receiver; empty otherwise.
    var blocks: [UnsafeRawBufferPointer] = []
    var postedAt = ContinuousClock.now
    /// For each receiver, the exchanges it has taken its block of.
    var taken: [Int]
    /// Receivers that copy from here at this moment.
    var readers = 0
    /// Why this rank will not answer any more; what others throw who wait for it.
    var end: CrosspointError?
  }

  let monitor = Monitor()
  let link: LinkModel?
  var desks: [Desk]
  /// The first rank that ended by throwing.
  private(set) var firstFailed: Int?
  /// Rank threads that have not ended, and those among them that play dead.
  private var running: Int
  private var silent = 0

  init(ranks: Int, link: LinkModel?) {
    self.link = link
    desks = Array(repeating: Desk(taken: Array(repeating: 0, count: ranks)), count: ranks)
    running = ranks
  }

  /// The body of `rank` has ended; `failure` is what it threw. Others that still wait for it throw.
  func finish(_ rank: Int, failure: (any Error)?) {
    monitor.lock()
    defer { monitor.unlock() }
    running -= 1
    if failure != nil, firstFailed == nil { firstFailed = rank }
    if desks[rank].end == nil {
      let how = failure.map { "threw (\($0))" } ?? "returned"
      desks[rank].end = CrosspointError(
        .rankLost, operation: "exchange", rank: rank, argument: "fabric",
        "the rank \(how) after \(desks[rank].begun) exchanges while others waited for it")
    }
    monitor.broadcast()
  }

  /// Waits, but not longer than the cluster is sound.
  func pause(for delay: Duration) {
    monitor.lock()
    defer { monitor.unlock() }
    let end = ContinuousClock.now + delay
    while ContinuousClock.now < end, firstFailed == nil { monitor.wait(until: end) }
  }

  /// Plays a rank that hangs: returns when all other ranks have ended or hang too.
  func fallSilent() {
    monitor.lock()
    defer { monitor.unlock() }
    silent += 1
    monitor.broadcast()
    while running > silent { monitor.wait() }
  }

  /// ``leave(_:_:)`` for a rank that is outside an exchange.
  func lose(_ rank: Int, _ error: CrosspointError) -> CrosspointError {
    monitor.lock()
    defer { monitor.unlock() }
    return leave(rank, error)
  }

  /// Records why `rank` leaves, takes its blocks back and wakes the others. The lock is held.
  func leave(_ rank: Int, _ error: CrosspointError) -> CrosspointError {
    if desks[rank].end == nil { desks[rank].end = error }
    monitor.broadcast()
    while desks[rank].readers > 0 { monitor.wait() }
    desks[rank].blocks = []
    return error
  }
}
