import ArgumentParser
import Crosspoint

/// A command that every rank of a job runs: the processes that mpirun started, or threads of this one.
package protocol RankCommand: ParsableCommand {
  /// The ranks that it makes itself, without MPI; `nil`: those of MPI.
  var cluster: SimulatedCluster? { get }
  /// How long a rank waits for the others.
  var deadline: Duration { get }

  /// What every rank runs. What is thrown on one rank alone should be agreed on where it arises (`Fabric.together`): then it
  /// is printed once and every rank ends in order. Otherwise one rank prints what it knows and ends the others.
  func job() throws(CrosspointError) -> @Sendable (any Fabric) throws -> Void
}
