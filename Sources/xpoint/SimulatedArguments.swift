import ArgumentParser
import Crosspoint
import CrosspointOptions

/// Ranks that are threads of this process, and what lies between them.
struct SimulatedArguments: ParsableArguments {
  @Option(help: "Simulate this many ranks in one process instead of using MPI.")
  var simulated: Int?
  @OptionGroup var links: LinkArguments

  func validate() throws {
    try Ranges.require(("--simulated", simulated ?? 1, Ranges.simulated))
    try links.require("--simulated", simulated)
  }

  /// `nil` where ranks are those of MPI.
  func cluster(deadline: Duration) -> SimulatedCluster? {
    simulated.map { links.cluster(ranks: $0, deadline: deadline) }
  }
}
