import ArgumentParser
import CrosspointCore

/// The sizes of a model. Tokens are bytes: the vocabulary is 256.
package struct ModelShape: CommandLineOptions {
  package static let standard = parseOrExit([])

  /// Distinct tokens.
  package static let vocabulary = 256

  @Option(help: "Bytes that the model sees, and the length of a training sequence.")
  package var context = 128

  @Option(help: "Floats per token.")
  package var width = 128

  @Option(help: "Blocks; every second one has experts.")
  package var blocks = 4

  @Option(help: "Attention heads; the width is divided among them.")
  package var heads = 4

  @Option(help: "Experts of each MoE layer, over all ranks.")
  package var experts = 8

  @Option(help: "Hidden floats of an expert and of a dense feed-forward.")
  package var expertWidth = 512

  @Option(
    help: ArgumentHelp(
      "Floats per token on its way to the experts and within them; as many as --width if left out.",
      valueName: "floats"))
  package var latent: Int?

  @Option(help: "Experts per token.")
  package var topK = 2

  @Option(help: "Experts that every token passes besides its routed ones; their tokens never travel.")
  package var sharedExperts = 0

  @Option(help: "Coefficient of the load-balance loss.")
  package var loadBalance: Float = 0.01

  @Option(help: "causal predicts each next byte; masked predicts hidden bytes and sees both directions.")
  package var objective = Objective.causal

  @Option(help: "Share of the bytes that the masked objective hides.")
  package var maskFraction: Float = 0.15

  @Flag(help: "Attention may look at nothing: e^s / (1 + sum e^s).")
  package var softmax1 = false

  /// What happens to tokens in front of the experts.
  package var stages = StageOptions.standard

  package init() {}

  /// Whether a block's feed-forward is a mixture of experts.
  func hasExperts(block: Int) -> Bool { block % 2 == 1 }

  /// How many experts wide a block's dense feed-forward is.
  func denseExperts(block: Int) -> Int { hasExperts(block: block) ? sharedExperts : 1 }

  var headWidth: Int { width / heads }

  /// Floats of a row that travels.
  var routedWidth: Int { latent ?? width }

  /// - Throws: `invalidArgument` naming the first size that makes no model.
  func check() throws(CrosspointError) {
    for (name, value) in [
      ("context", context), ("width", width), ("blocks", blocks), ("heads", heads), ("experts", experts),
      ("expert-width", expertWidth), ("top-k", topK),
    ] {
      try require(value > 0, name, "\(value); it must be at least one")
      try require(value <= 1 << 20, name, "\(value); the most is \(1 << 20)")
    }
    try require(
      blocks * experts <= 1 << 22, "experts", "\(experts) in each MoE layer of \(blocks) blocks; the most is \(1 << 22)"
    )
    let perBlock = 4 * Double(width) + 2 * Double(expertWidth) * Double(max(experts, sharedExperts))
    let parameters = Double(blocks) * Double(width) * perBlock
    try require(parameters < 0x1p48, "width", "\(width) makes a model of some \(parameters) parameters")
    try require(
      (1...width).contains(routedWidth), "latent", "\(routedWidth); 1 to the width of \(width) are possible")
    try require((0...64).contains(sharedExperts), "shared-experts", "\(sharedExperts); 0 to 64 are possible")
    try require(topK <= experts, "top-k", "\(topK) of \(experts) experts")
    try require(width % (2 * heads) == 0, "heads", "\(heads) heads do not divide a width of \(width) into even parts")
    try require(
      maskFraction > 0 && maskFraction <= 1, "mask-fraction", "\(maskFraction); it must be above 0 and at most 1")
    try require(loadBalance >= 0 && loadBalance.isFinite, "load-balance", "\(loadBalance); it must not be negative")
    try stages.check(self)
  }
}

/// Bad input: throws unless the condition holds.
func require(_ condition: Bool, _ argument: String, _ message: String) throws(CrosspointError) {
  guard condition else {
    throw CrosspointError(.invalidArgument, operation: "options", argument: argument, message)
  }
}
