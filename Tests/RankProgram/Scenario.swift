import CrosspointCore
import CrosspointMPI
import MPI

/// Something that real ranks do under mpirun, checked by the ranks themselves.
struct Scenario: Sendable {
  enum End: Sendable {
    /// `ok <name>` and exit code 0.
    case ok
    /// A rank dies on purpose; the others name it and the job ends with another exit code.
    case dies
  }

  let name: String
  /// The rank counts it is tested with, for example `1,2,4`.
  let ranks: String
  let end: End
  /// Unoptimised code allocates where optimised code does not.
  let needsReleaseBuild: Bool
  let run: @Sendable (Ranks) throws -> Void

  init(
    _ name: String, ranks: String, end: End = .ok, needsReleaseBuild: Bool = false,
    _ run: @escaping @Sendable (Ranks) throws -> Void
  ) {
    self.name = name
    self.ranks = ranks
    self.end = end
    self.needsReleaseBuild = needsReleaseBuild
    self.run = run
  }

  /// Whether this build of the program can run it.
  var isRunnable: Bool {
    #if DEBUG
      !needsReleaseBuild
    #else
      true
    #endif
  }

  func allows(_ count: Int) -> Bool { ranks.split(separator: ",").contains { Int($0) == count } }
}

/// What a scenario gets to work with.
struct Ranks {
  let world: Communicator
  /// What follows the scenario's name on the command line.
  let arguments: [String]
  var rank: Int { world.rank }
  var count: Int { world.size }
  /// The rank that misbehaves in scenarios about failures.
  var last: Int { count - 1 }

  /// How blocks travel through the fabrics made here.
  var path = Path.shared

  enum Path: String, CaseIterable {
    /// All ranks are of one node and share memory.
    case shared
    /// Ranks share nothing.
    case messages
    /// Nodes of two ranks: both at once.
    case nodes

    var ranksPerNode: Int? { self == .nodes ? 2 : nil }
  }

  func fabric(deadline: Duration = .seconds(30), chunkLimit: Int = 1 << 30) throws -> MPIFabric {
    try MPIFabric(
      world, deadline: deadline, chunkLimit: chunkLimit, sharesMemory: path != .messages,
      ranksPerNode: path.ranksPerNode)
  }

  func expect(_ holds: Bool, _ claim: @autoclosure () -> String) throws {
    if !holds { throw Unmet(description: claim()) }
  }

  func expect<Value: Equatable>(_ found: Value, is expected: Value, _ what: @autoclosure () -> String) throws {
    if found != expected { throw Unmet(description: "\(what()): \(found), expected \(expected)") }
  }

  /// Runs what must throw, and returns the error.
  func expectError<Failure: Error>(
    _ type: Failure.Type, _ what: @autoclosure () -> String, _ body: () throws -> Void
  ) throws -> Failure {
    do { try body() } catch let error as Failure { return error }
    throw Unmet(description: "\(what()) throws nothing")
  }
}

/// What runs a scenario on one path after the other.
func onEveryPath(_ body: @escaping @Sendable (Ranks) throws -> Void) -> @Sendable (Ranks) throws -> Void {
  { ranks in
    for path in Ranks.Path.allCases where path == .shared || ranks.count > (path.ranksPerNode ?? 1) {
      var there = ranks
      there.path = path
      do { try body(there) } catch let unmet as Unmet { throw Unmet(description: "path \(path): \(unmet)") }
      try ranks.world.barrier()
    }
  }
}

/// What runs a scenario with fabrics that share no memory.
func inMessages(_ body: @escaping @Sendable (Ranks) throws -> Void) -> @Sendable (Ranks) throws -> Void {
  { ranks in
    var there = ranks
    there.path = .messages
    try body(there)
  }
}

/// A claim that does not hold.
struct Unmet: Error, CustomStringConvertible {
  let description: String
}
