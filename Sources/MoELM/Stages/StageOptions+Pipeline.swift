import Crosspoint

extension StageOptions {
  /// The stages of one layer, in the order in which tokens pass them: deletion, merging, pooling.
  func pipeline(_ layer: String, _ shape: ModelShape) throws(CrosspointError) -> TokenPipeline {
    let seed = seed(of: layer)
    let isCausal = shape.objective == .causal
    var stages: [any TokenStage] = []
    if deletes {
      let gate = try DeletionGate(hidden: shape.width, options: deletionOptions(seed: seed))
      if let deletionThreshold = evaluation.deletionThreshold, !weighsAttention {
        try gate.setEvaluationThreshold(deletionThreshold)
      }
      stages.append(gate)
    }
    if let mergingThreshold {
      stages.append(
        try TokenMerging(MergingOptions(threshold: mergingThreshold, window: mergeWindow, isCausal: isCausal)))
    }
    if pools {
      stages.append(try WindowPooling(.sampled(granularities, seed: seed), isShifted: granularityShift))
    }
    return try TokenPipeline(stages, causal: isCausal)
  }

  /// The router of every layer, without a trim whose threshold moves.
  func router(_ shape: ModelShape) throws(CrosspointError) -> TopKRouter {
    var router = try TopKRouter(
      experts: shape.experts, topK: shape.topK, scoring: .softmaxThenTopK(renormalised: true),
      loadBalance: shape.loadBalance)
    if groupsPerToken != nil {
      router = try router.priced(0, perGroupOf: routerGroups)
    } else if routerGroups != 1 || routerGroupLimit != 1 {
      router = try router.limited(toGroups: routerGroupLimit, of: routerGroups)
    }
    switch (prune, secondExpert) {
    case (.threshold(let threshold), _): return try router.trimmed(by: pruning(threshold))
    case (.auto, _): return try router.trimmed(by: pruning(MovingThreshold.pruning(share: pruneShare).value))
    case (.off, .random): return try router.trimmed(by: .randomSecond())
    case (.off, .all): return router
    }
  }

  /// The trim that `prune` and `pruneProtect` ask for.
  func pruning(_ threshold: Double) -> RoutingTrim { .pruning(threshold: threshold, protecting: pruneProtect) }

  /// Every layer draws from a seed of its own.
  func seed(of layer: String) -> UInt64 { fnv1a(layer.utf8, seed: seed) }

  private var mergingThreshold: MergingOptions.Threshold? {
    switch merge {
    case .off: nil
    case .threshold(let cosine): .given(cosine)
    case .rate(let rate): .learned(rate: rate)
    }
  }

  /// What the deletion of a layer does.
  func deletionOptions(seed: UInt64) -> DeletionOptions {
    DeletionOptions(rule: deletionRule, warmUp: deletionWarmup, seed: seed)
  }

  private var deletionRule: DeletionOptions.Rule {
    switch (deletion, deletionForm) {
    case (.random, _): .random(rate: deletionRate)
    case (.fixed, _): .fixed(rate: deletionRate)
    case (.gate, .attention): .supplied
    case (.gate, .experts):
      .learned(
        DeletionOptions.Learning(
          regulariser: deletionScope == .model
            ? .supplied
            : .controlled(
              target: deletionRate, proportional: deletionProportional, integral: deletionIntegral,
              leastWeight: deletionLeastWeight),
          hardProbability: deletionHardProbability))
    }
  }
}
