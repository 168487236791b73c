import ArgumentParser
import Crosspoint

struct Bench: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Times one part of Crosspoint against its plain counterpart, in the same run.",
    discussion: """
      Examples:
        mpirun -n 2 xpoint bench exchange --json exchange.json
        mpirun -n 2 xpoint bench alltoall
        xpoint bench waves --simulated 4 --link-speed 125 --link-latency 50
        xpoint bench codec --hidden 1024
        xpoint bench hash --hidden 1024
      """,
    subcommands: [BenchExchange.self, BenchAlltoall.self, BenchWaves.self, BenchHash.self, BenchCodec.self])
}

/// What a benchmark found to differ from what it is compared with makes it fail.
func expectNothingWrong(_ wrong: Int, _ what: String) throws(CrosspointError) {
  guard wrong == 0 else {
    throw CrosspointError(
      .corruptFrame, operation: "bench", argument: "results", "\(wrong) \(what): run xpoint doctor")
  }
}
