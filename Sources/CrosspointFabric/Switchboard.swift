import CrosspointCore

/// What the ranks of a simulated cluster share: a desk per rank, where it lays out its blocks for the others.
///
/// Every copy is made once, outside the lock, by its receiver, or by its sender if the receiver does something else: then
/// the sender need not wait for it. A rank clears its desk only when nobody copies from it or to it any more, in success and
/// in failure. All fields are guarded by `monitor`.
final class Switchboard: @unchecked Sendable {
  struct Desk {
    /// Exchanges this rank has begun.
    var begun = 0
    /// Those that it has not finished, and others whose memory waits for the next.
    var posts: [Post] = []
    var idle: [Post] = []
    /// The exchange that it waits in, and takes its blocks of.
    var finishing = 0
    /// When all that it has sent has left its port.
    var sendFree = ContinuousClock.now
    /// Copies from here and to here at this moment.
    var copies = 0
    /// Why this rank will not answer any more; what others throw who wait for it.
    var end: CrosspointError?

    func post(_ number: Int) -> Post? { posts.first { $0.number == number } }
  }

  /// What a rank sends and receives in one exchange.
  final class Post {
    fileprivate(set) var number = 0
    /// As ``Fabric/beginExchange(send:receive:slack:operation:)`` has them.
    fileprivate(set) var send: [UnsafeRawBufferPointer] = []
    fileprivate(set) var receive: [UnsafeMutableRawBufferPointer] = []
    fileprivate(set) var slack = 0
    fileprivate(set) var operation: StaticString = ""
    /// When its bytes begin to leave, and when its port has taken in what has arrived.
    fileprivate(set) var departure = ContinuousClock.now
    var arrival = ContinuousClock.now
    /// For each receiver, whether its blocks are being copied, or have been; and whether they are there.
    var given: [Bool] = []
    var taken: [Bool] = []
    /// For each sender, whether its blocks are here; and whether this rank has been told.
    var got: [Bool] = []
    var reported: [Bool] = []
  }

  let monitor = Monitor()
  let link: LinkModel?
  @exclusivity(unchecked) var desks: [Desk]
  /// The first rank that ended by throwing.
  private(set) var firstFailed: Int?
  /// Rank threads that have not ended, and those among them that play dead.
  private var running: Int
  private var silent = 0

  init(ranks: Int, link: LinkModel?) {
    self.link = link
    desks = Array(repeating: Desk(), count: ranks)
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
    desks[rank].posts = []
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
    while desks[rank].copies > 0 { monitor.wait() }
    desks[rank].posts = []
    return error
  }

  /// Lays out what a rank sends and receives in its next exchange, and returns its number.
  func begin(
    _ rank: Int, send: [UnsafeRawBufferPointer], receive: [UnsafeMutableRawBufferPointer], slack: Int,
    operation: StaticString
  ) throws(CrosspointError) -> Int {
    monitor.lock()
    defer { monitor.unlock() }
    if let end = desks[rank].end { throw end }
    let post = desks[rank].idle.popLast() ?? Post()
    desks[rank].begun += 1
    post.number = desks[rank].begun
    (post.send, post.receive, post.slack, post.operation) = (send, receive, slack, operation)
    post.arrival = .now
    post.departure = max(post.arrival, desks[rank].sendFree)
    post.given.refill(with: false, count: desks.count)
    post.taken.refill(with: false, count: desks.count)
    post.got.refill(with: false, count: desks.count)
    post.reported.refill(with: false, count: desks.count)
    if let link {
      let bytes = desks.indices.reduce(0) { $0 + ($1 == rank ? 0 : post.bytes(to: $1)) }
      desks[rank].sendFree = post.departure + link.transmission(of: bytes)
    }
    desks[rank].posts.append(post)
    monitor.broadcast()
    return post.number
  }

  /// Takes a post away that is over. The lock is held.
  func remove(_ post: Post, of rank: Int) {
    desks[rank].posts.removeAll { $0 === post }
    (post.send, post.receive) = ([], [])
    desks[rank].idle.append(post)
  }
}

extension Switchboard.Post {
  /// What goes to a rank.
  func bytes(to receiver: Int) -> Int {
    let share = send.count / given.count
    return (0..<share).reduce(0) { $0 + send[receiver * share + $1].count }
  }
}
