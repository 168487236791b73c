import ArgumentParser
import CrosspointCore
import CrosspointOptions

/// The command line tool.
@main
struct XPoint: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "xpoint",
    abstract: "Checks, measures and tries out Crosspoint.",
    discussion: """
      Examples:
        xpoint doctor
        xpoint roundtrip --input X.npy --output Y.npy --wire rotated:4
        mpirun -n 4 xpoint tune --output tuning.json
        mpirun -n 4 xpoint bench exchange --hidden 1024 --tokens 4096 --top-k 2
      """,
    version: crosspointVersion, subcommands: [Doctor.self, Roundtrip.self, Tune.self, Plan.self, Bench.self])

  static func main() { runTool() }
}
