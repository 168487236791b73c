import ArgumentParser
import CrosspointCore

/// A layer with experts, as one rank sees it.
struct LayerArguments: ParsableArguments {
  @Option(help: "Tokens per rank.")
  var tokens = 4096
  @Option(help: "Floats per token.")
  var hidden = 1024
  @Option(help: "Experts per token.")
  var topK = 2
  @Option(help: "Experts over all ranks.")
  var experts = 16

  func validate() throws {
    try Ranges.require(
      ("--tokens", tokens, Ranges.rows), ("--hidden", hidden, Extent.hidden), ("--experts", experts, Extent.experts))
    try Ranges.require(("--top-k", topK, 1...experts))
  }

  /// Memory for tokens and results of two implementations that are compared, and their rows at either end.
  func requireMemory(onRanks ranks: Int) throws {
    try Ranges.requireMemory(
      "--tokens, --hidden, --top-k and --simulated", tokens, hidden, times: (4 + 4 * topK) * ranks)
  }
}
