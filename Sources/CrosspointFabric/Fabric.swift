import CrosspointCore

/// How bytes reach the other ranks: the one thing that Crosspoint asks of a transport.
///
/// Two implementations exist: `MPIFabric` (module CrosspointMPI) under mpirun, and ``SimulatedCluster``, whose ranks are
/// threads of one process. Everything else (`allreduce`, ``barrier(operation:)``, …) is built on exchanges in one place, so
/// both give the same bits and every wait has the same deadline.
///
/// A fabric belongs to one thread. All methods are collective: every rank must call them in the same order.
public protocol Fabric: AnyObject {
  /// This rank, in `0 ..< rankCount`.
  var rank: Int { get }
  /// The number of ranks, at least one.
  var rankCount: Int { get }
  /// How long a rank waits for another before it throws ``CrosspointError/Code/deadlineExceeded`` naming the silent rank.
  var deadline: Duration { get set }
  /// Memory that this rank shares with others of its node; `nil` where it shares none.
  var sharedMemory: (any SharedMemory)? { get }
  /// What collectives work in; a new one for each fabric.
  var collectiveMemory: CollectiveMemory { get }

  /// Begins to send `send[p]` to every rank p and to fill `receive[p]` with what rank p sends here. Collective, but waits for
  /// nobody.
  ///
  /// Several exchanges may be under way. Ranks begin and finish them in the same order, which need not be that in which they
  /// were begun. Each goes on while this rank waits in any other.
  ///
  /// Bytes may lie in several places: with B blocks per rank, the same B on every rank, those of rank p are numbers
  /// `p · B ..< (p + 1) · B` of both arrays, and block i of a rank fills block i of another.
  ///
  /// - Parameters:
  ///   - send: B blocks per rank, mostly one; those for this rank itself are copied locally. They stay as they are, and
  ///     valid, until the exchange is finished.
  ///   - receive: as many; `receive[p].count` must equal the bytes that p sends here. A rank that sends more
  ///     or fewer bytes is caught: ``CrosspointError/Code/truncatedFrame`` naming the sender.
  ///   - slack: bytes that a block may have fewer than the memory for it, the same on every rank; then one block per rank.
  ///     What comes says itself how long it is.
  ///   - operation: the public call on whose behalf this runs, for error messages.
  /// - Returns: its number: how many this rank has begun, which every rank counts alike.
  /// - Throws: `truncatedFrame`, `rankLost`, `transport`. After an error the fabric is unusable.
  func beginExchange(
    send: [UnsafeRawBufferPointer], receive: [UnsafeMutableRawBufferPointer], slack: Int, operation: StaticString
  ) throws(CrosspointError) -> Int

  /// Waits until an exchange is over. Collective.
  ///
  /// - Parameters:
  ///   - number: of one that has been begun and not been finished.
  ///   - arrived: called once per rank as soon as all it sends is complete (empty blocks included), in the order of
  ///     arrival, while other ranks' blocks are still under way.
  ///   - meanwhile: work of this rank alone: does a short slice of it and says whether any is left. It is called while
  ///     bytes are under way and nothing has arrived, and between two calls the fabric makes progress, which MPI makes in
  ///     no other way; once it has said that nothing is left it is not called again until a rank has arrived, which may
  ///     have brought some. How often it is called depends on time: what is left at the end is the caller's to do. A slice must not use the fabric, nor touch what is sent or
  ///     received. Its time is not counted as another rank's silence, but other ranks' deadlines go on: keep slices short.
  /// - Throws: `truncatedFrame`, `deadlineExceeded`, `rankLost`, `transport`. After an error the fabric is unusable.
  func finishExchange(
    _ number: Int, arrived: (_ source: Int) -> Void, meanwhile: () -> Bool
  ) throws(CrosspointError)
}

extension Fabric {
  public var sharedMemory: (any SharedMemory)? { nil }

  /// Begins an exchange and finishes it. Collective.
  public func exchange(
    send: [UnsafeRawBufferPointer], receive: [UnsafeMutableRawBufferPointer], slack: Int, operation: StaticString,
    arrived: (_ source: Int) -> Void, meanwhile: () -> Bool
  ) throws(CrosspointError) {
    let number = try beginExchange(send: send, receive: receive, slack: slack, operation: operation)
    try finishExchange(number, arrived: arrived, meanwhile: meanwhile)
  }

  /// The same with blocks as long as is expected.
  public func exchange(
    send: [UnsafeRawBufferPointer], receive: [UnsafeMutableRawBufferPointer], operation: StaticString,
    arrived: (_ source: Int) -> Void, meanwhile: () -> Bool
  ) throws(CrosspointError) {
    try exchange(send: send, receive: receive, slack: 0, operation: operation, arrived: arrived, meanwhile: meanwhile)
  }

  /// The same without work to do meanwhile.
  public func exchange(
    send: [UnsafeRawBufferPointer], receive: [UnsafeMutableRawBufferPointer], operation: StaticString,
    arrived: (_ source: Int) -> Void
  ) throws(CrosspointError) {
    try exchange(send: send, receive: receive, operation: operation, arrived: arrived, meanwhile: { false })
  }

  /// The same, which hears of nothing and has nothing to do meanwhile.
  public func exchange(
    send: [UnsafeRawBufferPointer], receive: [UnsafeMutableRawBufferPointer], operation: StaticString
  ) throws(CrosspointError) {
    try exchange(send: send, receive: receive, operation: operation, arrived: { _ in })
  }
}
