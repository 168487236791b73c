import CrosspointCore
import CrosspointFabric
import MPI

/// Processes that have just been started may take so long before all of them have come.
private let leastStart = Duration.seconds(5)
/// How much longer each rank waits than the one below, so that one reports.
private let grace = Duration.milliseconds(250)

/// The fabric over MPI: ranks are the processes that mpirun started.
///
///     let fabric = try MPIFabric.world()
///     …
///     try fabric.finalize()
///
/// Blocks travel point to point on a communicator of its own. MPI 3.1 has no recovery: after an error, transfers that had
/// begun may still read and write the blocks they were given, so the fabric refuses all further calls with the same error,
/// and the program should ``abort(exitCode:reporting:)``, which also ends ranks that hang.
public final class MPIFabric: Fabric {
  public let rank: Int
  public let rankCount: Int
  @exclusivity(unchecked) public var deadline: Duration
  public let collectiveMemory = CollectiveMemory()

  /// The communicator that this fabric has for itself; for collectives of MPI's own between two exchanges.
  public let communicator: Communicator
  /// Blocks are sent in messages of at most this many bytes; between nodes in smaller ones.
  package let chunkLimit: Int
  public var sharedMemory: (any SharedMemory)? { node.memory }
  /// Asked now and then while this rank waits for others: whether it should stop, which throws
  /// ``CrosspointError/Code/interrupted`` and makes the fabric unusable. Not asked within MPI's own start and end.
  @exclusivity(unchecked) public var isInterrupted: (() -> Bool)?
  /// When that was asked last.
  @exclusivity(unchecked) var asked = ContinuousClock.now
  /// The ranks of this node that this one shares no memory with, and why.
  public var unshared: [Int: String] { node.obstacles.mapValues(\.description) }

  /// What keeps this process from sharing memory with any other; `nil`: nothing.
  package static var memoryObstacle: String? { NodeMemory.obstacle?.description }

  let node: NodeMemory.Joined
  /// The exchanges under way, in the order of their beginnings, and others whose memory waits for the next.
  @exclusivity(unchecked) var underWay: [PostedExchange] = []
  @exclusivity(unchecked) var idle: [PostedExchange] = []
  /// Exchanges so far.
  var sequence = 0
  /// What made this fabric unusable.
  var failure: CrosspointError?
  private let endsMPI: Bool

  /// All ranks of the job. Collective. Starts MPI unless the program has.
  ///
  /// MPI's own start waits for every rank. It cannot be called back: where it takes longer than the deadline (and 5 seconds,
  /// for processes that have just been started), one line says so and the process ends.
  ///
  /// - Parameters:
  ///   - deadline: how long a rank waits for the others in one exchange; take more than the slowest rank needs between two
  ///     exchanges.
  ///   - sharesMemory: whether ranks of a node share memory, where they can; else all travels in messages of MPI.
  /// - Throws: ``CrosspointError/Code/transport``; ``CrosspointError/Code/outOfMemory`` where a limit on the address space
  ///   leaves MPI too little; ``CrosspointError/Code/invalidArgument`` under another MPI's launcher.
  public static func world(
    deadline: Duration = .seconds(60), sharesMemory: Bool = true
  ) throws(CrosspointError) -> MPIFabric {
    let starts = !MPIEnvironment.isInitialized
    let communicator: Communicator
    do {
      if starts {
        _ = try bounded("MPI_Init_thread", "world", deadline) { () throws(MPIError) in
          try MPIEnvironment.initialize()
        }
      }
      communicator = try bounded("MPI_Comm_dup", "world", deadline) { () throws(MPIError) in
        try Communicator.world()
      }
    } catch {
      throw CrosspointError(error, operation: "world")
    }
    try Launcher.check(communicator)
    do {
      return try MPIFabric(
        owning: communicator, deadline: deadline, chunkLimit: 1 << 30, endsMPI: starts, sharesMemory: sharesMemory,
        ranksPerNode: nil)
    } catch {
      throw CrosspointError(error, operation: "world")
    }
  }

  /// The ranks of a communicator, which is duplicated: messages on the given one never meet the fabric's. Collective.
  ///
  /// - Parameter chunkLimit: bytes per message, at most 2³¹ − 1; the same on all ranks. Low values are for tests.
  /// - Throws: ``CrosspointError/Code/invalidArgument`` for a limit out of range, ``CrosspointError/Code/transport``.
  public convenience init(
    _ communicator: Communicator, deadline: Duration = .seconds(60), chunkLimit: Int = 1 << 30,
    sharesMemory: Bool = true
  ) throws(CrosspointError) {
    try self.init(
      communicator, deadline: deadline, chunkLimit: chunkLimit, sharesMemory: sharesMemory, ranksPerNode: nil)
  }

  /// The ranks of a communicator that another language made, by its Fortran handle (`MPI_Comm_c2f`, mpi4py's `py2f`). It is
  /// duplicated. Collective; MPI must be running.
  /// - Throws: ``CrosspointError/Code/transport``, also for a handle that names no communicator.
  public convenience init(
    fortranHandle: Int32, deadline: Duration = .seconds(60), sharesMemory: Bool = true
  ) throws(CrosspointError) {
    do {
      let own = try Self.bounded("MPI_Comm_dup", "init", deadline) { () throws(MPIError) in
        try Communicator.duplicate(fortranHandle: fortranHandle)
      }
      try self.init(
        owning: own, deadline: deadline, chunkLimit: 1 << 30, endsMPI: false, sharesMemory: sharesMemory,
        ranksPerNode: nil)
    } catch {
      throw CrosspointError(error, operation: "init")
    }
  }

  /// - Parameter ranksPerNode: so many ranks in a row form a node: several nodes on one machine, for tests.
  package convenience init(
    _ communicator: Communicator, deadline: Duration, chunkLimit: Int, sharesMemory: Bool, ranksPerNode: Int?
  ) throws(CrosspointError) {
    guard (1...Int(Int32.max)).contains(chunkLimit) else {
      throw CrosspointError(
        .invalidArgument, operation: "init", rank: communicator.rank, argument: "chunkLimit",
        "\(chunkLimit) is outside 1 ... \(Int32.max) bytes")
    }
    do {
      let own = try Self.bounded("MPI_Comm_dup", "init", deadline) { () throws(MPIError) in
        try communicator.duplicate()
      }
      try self.init(
        owning: own, deadline: deadline, chunkLimit: chunkLimit, endsMPI: false, sharesMemory: sharesMemory,
        ranksPerNode: ranksPerNode)
    } catch {
      throw CrosspointError(error, operation: "init")
    }
  }

  private init(
    owning communicator: Communicator, deadline: Duration, chunkLimit: Int, endsMPI: Bool, sharesMemory: Bool,
    ranksPerNode: Int?
  ) throws(MPIError) {
    self.communicator = communicator
    self.deadline = deadline
    self.chunkLimit = chunkLimit
    self.endsMPI = endsMPI
    rank = communicator.rank
    rankCount = communicator.size
    node = try Self.bounded("MPI_Comm_split_type", "world", deadline) { () throws(MPIError) in
      try NodeMemory.join(communicator, sharesMemory: sharesMemory, ranksPerNode: ranksPerNode)
    }
    idle.append(PostedExchange(on: self))
    if let (peer, obstacle) = node.obstacles.filter({ $0.value != .unwanted }).min(by: { $0.key < $1.key }) {
      let count = node.obstacles.count
      Log.write(
        .warning, rank: rank,
        "no memory is shared with \(count) ranks of this node, rows go in messages; rank \(peer): \(obstacle)")
    }
  }

  deinit {
    // Late messages of an exchange that failed may still come, and be read from blocks that were to be sent: no later
    // communicator may get this one's context, and the memory stays.
    if failure != nil {
      _ = Unmanaged.passRetained(communicator)
      _ = Unmanaged.passRetained(collectiveMemory)
      if let memory = node.memory { _ = Unmanaged.passRetained(memory) }
    }
  }

  /// Waits for every rank, then ends MPI if ``world(deadline:sharesMemory:)`` started it. Collective: the last call of every rank, after
  /// success and after an error that is agreed on. After any other use ``abort(exitCode:reporting:)``.
  ///
  /// - Throws: `deadlineExceeded` naming a rank that does not come; what made this fabric unusable.
  public func finalize() throws(CrosspointError) {
    try barrier(operation: "finalize")
    guard endsMPI else { return }
    do {
      try Self.bounded("MPI_Finalize", "finalize", deadline) { () throws(MPIError) in try MPIEnvironment.finalize() }
    } catch {
      throw CrosspointError(error, operation: "finalize")
    }
  }

  /// Runs a call of MPI that waits for every rank without a deadline of its own. When ours passes, the lowest rank that is
  /// still there says so, and its end ends all: the others wait a little longer.
  package static func bounded<Result>(
    _ call: String, _ operation: String, _ deadline: Duration, _ body: () throws(MPIError) -> Result
  ) throws(MPIError) -> Result {
    let (limit, rank) = (max(deadline, leastStart), MPIEnvironment.launchedRank ?? 0)
    let error = CrosspointError(
      .deadlineExceeded, operation: operation, argument: call,
      "rank \(rank) has waited \(limit) in MPI for the others: see whether all of them run, and whether their limit on the "
        + "address space (ulimit -v) leaves MPI enough")
    let program = CommandLine.arguments.first?.split(separator: "/").last ?? "crosspoint"
    return try MPIEnvironment.bounded(by: limit + grace * min(rank, 4), report: "\(program): \(error)", body)
  }
}

extension CrosspointError {
  /// An error of MPI, as ``CrosspointError/Code/transport``, or ``CrosspointError/Code/outOfMemory``.
  package init(_ error: MPIError, operation: String) {
    let code = error.errorClass == .memory ? Code.outOfMemory : .transport
    self.init(code, operation: operation, rank: error.rank, argument: error.call, error.text)
  }
}
