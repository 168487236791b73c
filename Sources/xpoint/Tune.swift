import ArgumentParser
import Crosspoint
import CrosspointFiles
import CrosspointOptions

/// Times what codes and links take, for policies that choose by time.
struct Tune: RankCommand {
  static let configuration = CommandConfiguration(
    abstract: "Times codes and links once, and writes them to a file for --fastest and xpoint plan.",
    discussion: """
      Run it where you train: on as many ranks, spread alike over the hosts, and while nothing else runs. All ranks send \
      to all others at once; the slowest rank decides.

      Examples:
        mpirun -n 4 xpoint tune --output tuning.json
        mpirun -n 4 moe-lm train --data text --fastest 0.02 --tuning tuning.json
        xpoint tune --simulated 4 --link-speed 125 --link-latency 50 --output slow.json
      """)

  @Option(help: ArgumentHelp("Where to write what was timed.", valueName: "FILE"))
  var output: String
  @Option(help: "Floats per row.")
  var hidden = 1024
  @OptionGroup var ranks: SimulatedArguments

  func validate() throws {
    try Ranges.require(("--hidden", hidden, Extent.hidden))
  }

  var deadline: Duration { .seconds(600) }

  var cluster: SimulatedCluster? { ranks.cluster(deadline: deadline) }

  func job() throws(CrosspointError) -> @Sendable (any Fabric) throws -> Void {
    { [hidden, output] fabric in
      let tuning = try Tuning(measuring: fabric, hidden: hidden, operation: "xpoint tune")
      try fabric.onRoot(operation: "xpoint tune") { () throws(CrosspointError) in
        try writeJSON(tuning, to: output, argument: "--output")
        print(Self.text(tuning))
      }
    }
  }

  private static func text(_ tuning: Tuning) -> String {
    var links = Table(columns: ["link", "latency(us)", "GB/s per rank"])
    for (name, link) in [("within a node", tuning.withinNode), ("between nodes", tuning.betweenNodes)] {
      guard let link else { continue }
      links.append([name, (link.latency * 1e6).fixed(1), (1 / link.secondsPerByte).gigabytes])
    }
    var codes = Table(columns: ["format", "encode + decode (GB/s of fp32)"])
    for (name, seconds) in tuning.codecs.sorted(by: { $0.value < $1.value }) {
      codes.append([name, (1 / seconds).gigabytes])
    }
    return links.text + "\n" + codes.text
  }
}
