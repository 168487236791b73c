import ArgumentParser
import Crosspoint

/// The nodes that a tool simulates, and the links between ranks.
package struct LinkArguments: ParsableArguments {
  @Option(
    help: ArgumentHelp(
      "Bytes that a simulated rank sends and receives per second, in millions; as fast as memory if left out.",
      valueName: "MB/s"))
  package var linkSpeed: Double?
  @Option(help: ArgumentHelp("How long they are under way, with --link-speed.", valueName: "µs"))
  package var linkLatency = 0

  @Option(help: "Simulated ranks that form a node and share memory.")
  package var ranksPerNode = 1

  package init() {}

  package func validate() throws {
    if let linkSpeed, !(linkSpeed > 0 && linkSpeed.isFinite) {
      throw ValidationError("--link-speed is \(linkSpeed); a finite number above 0 is needed")
    }
    guard ranksPerNode > 0 else { throw ValidationError("--ranks-per-node is \(ranksPerNode); at least 1 is needed") }
    guard (0...60_000_000).contains(linkLatency) else {
      throw ValidationError("--link-latency is \(linkLatency): 0 to 60000000")
    }
    guard linkLatency == 0 || linkSpeed != nil else {
      throw ValidationError("--link-latency is \(linkLatency); above 0 it needs --link-speed")
    }
  }

  /// Refuses nodes and links where no ranks are simulated.
  /// - Parameter option: the one that simulates ranks.
  package func require(_ option: String, _ ranks: Int?) throws {
    guard linkSpeed == nil || ranks != nil else {
      throw ValidationError("--link-speed is for ranks that \(option) makes")
    }
    guard ranksPerNode == 1 || ranks != nil else {
      throw ValidationError("--ranks-per-node is for ranks that \(option) makes")
    }
  }

  package func cluster(ranks: Int, deadline: Duration) -> SimulatedCluster {
    let link = linkSpeed.map { LinkModel(latency: .microseconds(linkLatency), bytesPerSecond: $0 * 1e6) }
    return SimulatedCluster(ranks: ranks, ranksPerNode: ranksPerNode, deadline: deadline, link: link)
  }
}
