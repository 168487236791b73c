import ArgumentParser
import Crosspoint
import CrosspointOptions

/// The language model that is trained through Crosspoint.
@main
struct MoELMCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "moe-lm", abstract: "Trains a byte-level mixture-of-experts language model over MPI.",
    discussion: """
      Examples:
        mpirun -n 4 moe-lm train --steps 1000 --metrics run.jsonl --summary run.json
        mpirun -n 4 moe-lm train --copies rank --wire bf16 --checkpoint run.ckpt --resume
        moe-lm eval --checkpoint run.ckpt
        mpirun -n 4 moe-lm train --deletion-rate 0.5 --prune auto
        mpirun -n 4 moe-lm train --objective masked --granularities 1,2,4
        moe-lm eval --checkpoint run.ckpt --granularity 4
        moe-lm train --ranks-simulated 4 --steps 100 --data book.txt

      Without --data the text is the King James Bible of Debian's package bible-kjv.
      """,
    version: crosspointVersion, subcommands: [Train.self, Evaluate.self])

  static func main() { runTool() }
}
