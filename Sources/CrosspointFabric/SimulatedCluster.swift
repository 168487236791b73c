import CrosspointCore
import Synchronization

/// Ranks that are threads of this process: the ``Fabric`` of tests, examples and experiments, without MPI.
///
/// ```swift
/// let sums = try SimulatedCluster(ranks: 4).run { fabric in
///   var sum = [Float(fabric.rank)]
///   try sum.withUnsafeMutableBufferPointer { try fabric.allreduce($0, operation: "example") }
///   return sum[0]
/// }
/// // sums == [6, 6, 6, 6]
/// ```
///
/// A block is copied once, from the sender's memory to the receiver's; a warm exchange allocates nothing. A failure inside
/// an exchange reaches every rank that waits for it as the same error; a rank that throws or returns elsewhere while others
/// wait for it is named to them as ``CrosspointError/Code/rankLost``, at once.
public struct SimulatedCluster: Sendable {
  package let ranks: Int
  /// So many ranks in a row form a node and share memory; 1: all that ranks tell each other travels in messages.
  public var ranksPerNode: Int
  /// Counted from the start of each exchange; where the ranks' ``Fabric/deadline`` starts.
  public var deadline: Duration
  /// The network's delays; `nil`: none.
  public var link: LinkModel?
  /// What goes wrong.
  public var faults: [Fault]

  /// - Precondition: 1 to 2¹⁶ ranks, each of which is a thread, and at least one per node; what a user asks for is for the
  ///   program to check.
  public init(
    ranks: Int, ranksPerNode: Int = 1, deadline: Duration = .seconds(30), link: LinkModel? = nil, faults: [Fault] = []
  ) {
    precondition((1...1 << 16).contains(ranks), "a cluster of \(ranks) ranks")
    precondition(ranksPerNode > 0, "nodes of \(ranksPerNode) ranks")
    self.ranks = ranks
    self.ranksPerNode = ranksPerNode
    self.deadline = deadline
    self.link = link
    self.faults = faults
  }

  /// Runs `body` once per rank, each in a thread of its own, and returns what they return, by rank.
  ///
  /// - Throws: what the rank threw that failed first.
  @discardableResult
  public func run<T: Sendable>(_ body: @escaping @Sendable (any Fabric) throws -> T) throws -> [T] {
    let (results, firstFailed) = runRanks(body)
    if let firstFailed { _ = try results[firstFailed].get() }
    return try results.map { try $0.get() }
  }

  /// As ``run(_:)``, but returns what each rank returned or threw.
  @discardableResult
  public func results<T: Sendable>(
    _ body: @escaping @Sendable (any Fabric) throws -> T
  ) -> [Result<T, any Error>] {
    runRanks(body).results
  }

  private func runRanks<T: Sendable>(
    _ body: @escaping @Sendable (any Fabric) throws -> T
  ) -> (results: [Result<T, any Error>], firstFailed: Int?) {
    let threads = SimulatedRanks(self)
    let results = Mutex([Result<T, any Error>?](repeating: nil, count: ranks))
    @Sendable func finish(_ rank: Int, _ result: Result<T, any Error>) {
      var failure: (any Error)?
      if case .failure(let error) = result { failure = error }
      results.withLock { $0[rank] = result }
      threads.finish(rank, failure: failure)
    }
    inThreads(count: ranks) { rank in
      finish(rank, Result { try body(threads.fabric(rank)) })
    } missing: { rank, status in
      let error = CrosspointError(
        .outOfMemory, operation: "SimulatedCluster.run", rank: rank, argument: "ranks",
        "the system gives no thread \(rank) of \(ranks) (error \(status)): take fewer ranks, or raise the limits (ulimit -a)"
      )
      finish(rank, .failure(error))
    }
    return (results.withLock { $0.map { $0! } }, threads.firstFailed)
  }
}
