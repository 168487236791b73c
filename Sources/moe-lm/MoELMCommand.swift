import ArgumentParser
import CrosspointOptions

/// The language model that is trained through Crosspoint.
@main
struct MoELMCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "moe-lm", abstract: "Trains a byte-level mixture-of-experts language model over MPI.",
    discussion: """
      Examples:
        mpirun -n 4 moe-lm train --steps 1000 --metrics run.jsonl --summary run.json
        mpirun -n 4 moe-lm train --compression lsh --wire bf16 --checkpoint run.ckpt --resume
        moe-lm eval --checkpoint run.ckpt
        moe-lm train --ranks-simulated 4 --steps 100 --data book.txt

      Without --data the text is the King James Bible of Debian's package bible-kjv.
      """,
    subcommands: [Train.self, Evaluate.self])

  static func main() { runTool() }
}
