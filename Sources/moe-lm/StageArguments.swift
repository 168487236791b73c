import ArgumentParser
import MoELM

extension StageOptions.Deletion: ExpressibleByArgument {}
extension StageOptions.DeletionForm: ExpressibleByArgument {}
extension StageOptions.DeletionScope: ExpressibleByArgument {}
extension StageOptions.GranularitySchedule: ExpressibleByArgument {}
extension StageOptions.SecondExpert: ExpressibleByArgument {}
extension StageOptions.Merge: ExpressibleByArgument {}
extension StageOptions.Prune: ExpressibleByArgument {}

/// What happens to tokens in front of the experts.
struct StageArguments: ParsableArguments {
  @Option(help: ArgumentHelp("Share of the tokens that do not go to the experts; 0 sends all.", valueName: "0..<1"))
  var deletionRate = 0.0

  @Option(help: "Which tokens stay: those that a learned gate finds dispensable, or as baselines random or fixed ones.")
  var deletion = StageOptions.Deletion.gate

  @Option(help: "What the gate weighs while it learns: the experts' output, layer by layer, or the keys of attention.")
  var deletionForm = StageOptions.DeletionForm.experts

  @Option(help: "What keeps to the rate: all layers together, each finding its share, or every layer for itself.")
  var deletionScope = StageOptions().deletionScope

  @Option(
    help: ArgumentHelp(
      "Steps before training deletes anything; over as many again the rate rises to its target.", valueName: "steps"))
  var deletionWarmup = StageOptions().deletionWarmUp

  @Option(help: "Probability that a training step deletes; all others weigh only.")
  var deletionHardProbability = StageOptions().deletionHardProbability

  @Option(help: "The gate's learning rate in units of the model's.")
  var deletionLearningRate = StageOptions().deletionLearningRate

  @Option(help: "Proportional gain of the controller that holds the rate.")
  var deletionProportional = StageOptions().deletionProportional

  @Option(help: "Integral gain of the controller that holds the rate.")
  var deletionIntegral = StageOptions().deletionIntegral

  @Option(help: "The least weight of the gate's regulariser, at most 0: below 0 it also keeps tokens.")
  var deletionLeastWeight = StageOptions().deletionLeastWeight

  @Option(help: "The block at whose input the gate of the attention form sits.")
  var deletionBlock = StageOptions().deletionBlock

  @Option(
    help: ArgumentHelp(
      "Tokens per row at which the experts see the text; 1 is no pooling.",
      discussion: "A causal model pools with --granularity-shift only.", valueName: "1,2,4"))
  var granularities = "1"

  @Option(help: "Whether a step takes all granularities, its loss being their mean, or one that is drawn.")
  var granularitySchedule = StageOptions().granularitySchedule

  @Flag(help: "A window's output goes to the next window, so that nothing is seen too early.")
  var granularityShift = false

  @Flag(help: "Each granularity has a router of its own, a baseline for how alike they choose.")
  var separateRouters = false

  @Option(
    help: ArgumentHelp(
      "Tokens that are alike go to the experts as one: those of this cosine, or so many that a share is merged away.",
      valueName: "off|COSINE|rate:SHARE"))
  var merge = StageOptions().merge

  @Option(help: "Tokens that each looks back over for one alike.")
  var mergeWindow = StageOptions().mergeWindow

  @Option(
    help: ArgumentHelp(
      "Drops experts after the first whose weight is below this part of the first's; auto finds it.",
      valueName: "off|auto|MU"))
  var prune = StageOptions().prune

  @Option(help: "Share of the experts after the first that --prune auto drops.")
  var pruneShare = StageOptions().pruneShare

  @Option(help: "Share of the tokens, those of the largest sum of magnitudes, that keep all their experts.")
  var pruneProtect = StageOptions().pruneProtect

  @Option(help: "random keeps experts after the first by chance in training, the more likely the higher their weight.")
  var secondExpert = StageOptions().secondExpert

  @Option(help: "Groups of consecutive experts, such as those of one node.")
  var routerGroups = StageOptions().routerGroups

  @Option(help: "Groups that the experts of a token may be in.")
  var routerGroupLimit = StageOptions().routerGroupLimit

  @Option(help: "Groups that a token uses on average, instead of a limit: it pays for each one beyond the first.")
  var groupsPerToken: Double?

  func validate() throws {
    if StageOptions.granularities(granularities) == nil {
      throw ValidationError("--granularities \(granularities): give whole numbers, for example 1,2,4")
    }
  }

  var options: StageOptions {
    var options = StageOptions()
    options.deletionRate = deletionRate
    options.deletion = deletion
    options.deletionForm = deletionForm
    options.deletionScope = deletionScope
    options.deletionWarmUp = deletionWarmup
    options.deletionHardProbability = deletionHardProbability
    options.deletionLearningRate = deletionLearningRate
    options.deletionProportional = deletionProportional
    options.deletionIntegral = deletionIntegral
    options.deletionLeastWeight = deletionLeastWeight
    options.deletionBlock = deletionBlock
    options.granularities = StageOptions.granularities(granularities) ?? []
    options.granularitySchedule = granularitySchedule
    options.granularityShift = granularityShift
    options.separateRouters = separateRouters
    options.merge = merge
    options.mergeWindow = mergeWindow
    options.prune = prune
    options.pruneShare = pruneShare
    options.pruneProtect = pruneProtect
    options.secondExpert = secondExpert
    options.routerGroups = routerGroups
    options.routerGroupLimit = routerGroupLimit
    options.groupsPerToken = groupsPerToken
    return options
  }
}

/// What of the stages an evaluation may change.
struct StageEvaluationArguments: ParsableArguments {
  @Option(help: ArgumentHelp("The share above which the gate keeps a token, instead of 0.5.", valueName: "0..<1"))
  var deletionThreshold: Double?

  @Option(help: "The granularity that the evaluation is about, instead of the first.")
  var granularity: Int?
}
