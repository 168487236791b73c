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
}
