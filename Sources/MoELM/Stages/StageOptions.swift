import ArgumentParser
import Crosspoint

/// What happens to tokens between the model and its experts; nothing by default.
package struct StageOptions: CommandLineOptions {
  package static let standard = parseOrExit([])

  /// Which tokens a deletion leaves out.
  package enum Deletion: String, Sendable, CaseIterable, ExpressibleByArgument {
    /// Those that a learned gate finds dispensable.
    case gate
    /// Any, drawn anew for every batch: a baseline.
    case random
    /// Those at fixed places: a baseline.
    case fixed
  }

  /// What a deletion gate weighs while it learns.
  package enum DeletionForm: String, Sendable, CaseIterable, ExpressibleByArgument {
    /// Each layer's gate weighs the output of its experts.
    case experts
    /// One gate for the model weighs keys of attention, as MrT5's does.
    case attention
  }

  /// What keeps to the rate of a deletion gate.
  package enum DeletionScope: String, Sendable, CaseIterable, ExpressibleByArgument {
    /// All layers together: each finds the share that suits it.
    case model
    /// Every layer for itself.
    case layer
  }

  /// Which granularities a training step takes.
  package enum GranularitySchedule: String, Sendable, CaseIterable, ExpressibleByArgument {
    /// Every one in each step; the loss is their mean.
    case all
    /// One, drawn for each step.
    case sampled
  }

  /// Which experts after the first a token keeps in training.
  package enum SecondExpert: String, Sendable, CaseIterable, ExpressibleByArgument {
    case all
    /// Each with probability `min(1, w / 0.2)`.
    case random
  }

  @Option(help: ArgumentHelp("Share of the tokens that do not go to the experts; 0 sends all.", valueName: "0..<1"))
  package var deletionRate = 0.0

  @Option(help: "Which tokens stay: those that a learned gate finds dispensable, or as baselines random or fixed ones.")
  package var deletion = Deletion.gate

  @Option(help: "What the gate weighs while it learns: the experts' output, layer by layer, or the keys of attention.")
  package var deletionForm = DeletionForm.experts

  @Option(help: "What keeps to the rate: all layers together, each finding its share, or every layer for itself.")
  package var deletionScope = DeletionScope.model

  @Option(
    help: ArgumentHelp(
      "Steps before training deletes anything; over as many again the rate rises to its target.", valueName: "steps"))
  package var deletionWarmup = 0

  @Option(help: "Probability that a training step deletes; all others weigh only.")
  package var deletionHardProbability = 1.0

  @Option(help: "The gate's learning rate in units of the model's.")
  package var deletionLearningRate: Float = 0.6

  @Option(help: "Proportional gain of the controller that holds the rate.")
  package var deletionProportional = 0.02

  @Option(help: "Integral gain of the controller that holds the rate.")
  package var deletionIntegral = 5e-5

  @Option(help: "The least weight of the gate's regulariser, at most 0: below 0 it also keeps tokens.")
  package var deletionLeastWeight = -0.002

  @Option(help: "The block at whose input the gate of the attention form sits.")
  package var deletionBlock = 1

  @Option(
    help: ArgumentHelp(
      "Tokens per row at which the experts see the text; 1, the default, is no pooling.",
      discussion: "A causal model pools with --granularity-shift only.", valueName: "1,2,4"), transform: wholeNumbers)
  package var granularities = [1]

  @Option(help: "Whether a step takes all granularities, its loss being their mean, or one that is drawn.")
  package var granularitySchedule = GranularitySchedule.all

  @Flag(help: "A window's output goes to the next window, so that nothing is seen too early.")
  package var granularityShift = false

  @Flag(help: "Each granularity has a router of its own, a baseline for how alike they choose.")
  package var separateRouters = false

  @Option(
    help: ArgumentHelp(
      "Tokens that are alike go to the experts as one: those of this cosine, or so many that a share is merged away.",
      valueName: "off|COSINE|rate:SHARE"))
  package var merge = Merge.off

  @Option(help: "Earlier tokens that each is compared with.")
  package var mergeWindow = 16

  @Option(
    help: ArgumentHelp(
      "Drops experts after the first whose weight is below this part of the first's; auto finds it.",
      valueName: "off|auto|MU"))
  package var prune = Prune.off

  @Option(help: "Share of the experts after the first that --prune auto drops.")
  package var pruneShare = 0.5

  @Option(help: "Share of the tokens, those of the largest sum of magnitudes, that keep all their experts.")
  package var pruneProtect = 0.02

  @Option(help: "random keeps experts after the first by chance in training, the more likely the higher their weight.")
  package var secondExpert = SecondExpert.all

  @Option(help: "Groups of consecutive experts, such as those of one node.")
  package var routerGroups = 1

  @Option(help: "Groups that the experts of a token may be in.")
  package var routerGroupLimit = 1

  @Option(help: "Groups that a token uses on average, instead of a limit: it pays for each one beyond the first.")
  package var groupsPerToken: Double?

  /// What an evaluation changes of them.
  package var evaluation = StageEvaluation.standard
  /// Seeds what stages begin with and draw.
  package var seed: UInt64 = 0

  package init() {}

  var deletes: Bool { deletionRate > 0 }

  /// Whether its gate weighs attention's keys.
  var weighsAttention: Bool { deletes && deletion == .gate && deletionForm == .attention }

  /// Whether one controller holds the rate of all gates.
  var hasModelControl: Bool { deletes && deletion == .gate && (deletionScope == .model || weighsAttention) }

  /// Whether rows are pooled at any granularity.
  var pools: Bool { granularities != [1] }

  /// One for each granularity: `nil` the shared router, which is the first one's, else the router of its own.
  var routers: [Int?] {
    granularities.indices.map { separateRouters && $0 > 0 ? granularities[$0] : nil }
  }

  /// Whether rows of all granularities stand for the same tokens, so that their choices can be compared.
  var comparesChoices: Bool { granularities.count > 1 && !deletes && merge == .off }

  /// Whether choices are taken away after routing.
  var trims: Bool { prune != .off || secondExpert != .all }
}

/// What of the stages an evaluation may change.
package struct StageEvaluation: CommandLineOptions {
  package static let standard = parseOrExit([])

  @Option(help: ArgumentHelp("The share above which the gate keeps a token, instead of 0.5.", valueName: "0..<1"))
  package var deletionThreshold: Double?

  @Option(help: "The granularity that the evaluation is about, instead of the first.")
  package var granularity: Int?

  package init() {}
}

/// `1,2,4` as numbers.
private func wholeNumbers(_ text: String) throws -> [Int] {
  try text.split(separator: ",", omittingEmptySubsequences: false).map { part in
    guard let number = Int(part) else { throw ValidationError("\(text): give whole numbers, for example 1,2,4") }
    return number
  }
}
