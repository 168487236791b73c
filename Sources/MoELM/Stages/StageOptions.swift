import Crosspoint

/// What happens to tokens between the model and its experts; nothing by default.
package struct StageOptions: Sendable, Hashable {
  /// Which tokens a deletion leaves out.
  package enum Deletion: String, Sendable, Hashable, CaseIterable {
    /// Those that a learned gate finds dispensable.
    case gate
    /// Any, drawn anew for every batch: a baseline.
    case random
    /// Those at fixed places: a baseline.
    case fixed
  }

  /// What a deletion gate weighs while it learns.
  package enum DeletionForm: String, Sendable, Hashable, CaseIterable {
    /// Each layer's gate weighs the output of its experts.
    case experts
    /// One gate for the model weighs keys of attention, as MrT5's does.
    case attention
  }

  /// What keeps to the rate of a deletion gate.
  package enum DeletionScope: String, Sendable, Hashable, CaseIterable {
    /// All layers together: each finds the share that suits it.
    case model
    /// Every layer for itself.
    case layer
  }

  /// Which granularities a training step takes.
  package enum GranularitySchedule: String, Sendable, Hashable, CaseIterable {
    /// Every one in each step; the loss is their mean.
    case all
    /// One, drawn for each step.
    case sampled
  }

  /// Which experts after the first a token keeps in training.
  package enum SecondExpert: String, Sendable, Hashable, CaseIterable {
    case all
    /// Each with probability `min(1, w / 0.2)`.
    case random
  }

  /// Share of the tokens that a deletion leaves out; 0 is no deletion.
  package var deletionRate = 0.0
  package var deletion = Deletion.gate
  package var deletionForm = DeletionForm.experts
  package var deletionScope = DeletionScope.model
  /// Steps before training deletes; over as many again the rate rises to its target.
  package var deletionWarmUp = 0
  /// Probability that a training step deletes; the other steps weigh only.
  package var deletionHardProbability = 1.0
  /// What the learning rate of a deletion gate is, in units of the model's.
  package var deletionLearningRate: Float = 0.6
  /// k_p and k_i of the gate's controller, per optimiser step.
  package var deletionProportional = 0.02
  package var deletionIntegral = 5e-5
  /// The least weight that the controller gives the regulariser; below 0 it also keeps tokens.
  package var deletionLeastWeight = -0.002
  /// The block at whose input the gate of the attention form sits.
  package var deletionBlock = 1
  /// Share above which a token is kept in evaluation, instead of ½.
  package var deletionThreshold: Double?

  /// Tokens per row at which the experts see the text, the first one first; 1 is no pooling.
  package var granularities = [1]
  package var granularitySchedule = GranularitySchedule.all
  /// Whether a window's output goes to the next window, so that a causal model may pool.
  package var granularityShift = false
  /// Whether each granularity has a router of its own: a baseline for how alike they choose.
  package var separateRouters = false
  /// The granularity that an evaluation is about; the first unless set.
  package var evaluatedGranularity: Int?

  /// Which similar tokens go to the experts as one.
  package var merge = Merge.off
  /// Tokens that each looks back over for one alike.
  package var mergeWindow = 16

  /// Which second and further experts a token goes without.
  package var prune = Prune.off
  /// Share of the experts after the first that `auto` drops.
  package var pruneShare = 0.5
  /// Share of the tokens, those of the largest ‖x‖₁, that keep all.
  package var pruneProtect = 0.02
  package var secondExpert = SecondExpert.all

  /// Groups of consecutive experts, and how many of them a token may use; 1 and 1 are no limit.
  package var routerGroups = 1
  package var routerGroupLimit = 1
  /// Groups that a token uses on average, instead of a limit: it pays for each beyond the first.
  package var groupsPerToken: Double?

  /// Seeds what stages begin with and draw.
  package var seed: UInt64 = 0

  package init() {}

  /// Whether there is a deletion at all.
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
