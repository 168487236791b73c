import Crosspoint

extension StageOptions {
  /// - Throws: `invalidArgument` naming the first option that makes no pipeline or no router.
  func check(_ shape: ModelShape) throws(CrosspointError) {
    try validateDeletion(shape)
    try validateGranularities(shape)
    try validateRouting(shape)
    // What is left the stages and the router say themselves.
    _ = try pipeline("block0", shape)
    _ = try router(shape)
  }

  private func validateDeletion(_ shape: ModelShape) throws(CrosspointError) {
    try require(
      deletionRate >= 0 && deletionRate < 1, "deletion-rate",
      "\(deletionRate) is not in 0 ..< 1; at 1 nothing would reach the experts")
    try require(deletionWarmup >= 0, "deletion-warmup", "\(deletionWarmup) steps; it must not be negative")
    try requireShare(deletionHardProbability, "deletion-hard-probability")
    for (name, value) in [
      ("deletion-learning-rate", Double(deletionLearningRate)), ("deletion-proportional", deletionProportional),
      ("deletion-integral", deletionIntegral),
    ] {
      try require(value >= 0 && value.isFinite, name, "\(value); it must be finite and not negative")
    }
    try require(
      deletionLeastWeight <= 0 && deletionLeastWeight.isFinite, "deletion-least-weight",
      "\(deletionLeastWeight); it must be finite and not above zero")
    if deletionForm == .attention {
      try require(deletion == .gate, "deletion-form", "attention needs --deletion gate, not \(deletion.rawValue)")
      try require(deletionScope == .model, "deletion-scope", "the attention form has one gate for the whole model")
      try require(
        (0..<shape.blocks).contains(deletionBlock), "deletion-block",
        "\(deletionBlock); the model has blocks 0 to \(shape.blocks - 1)")
    }
    if let threshold = evaluation.deletionThreshold {
      try require(
        threshold >= 0 && threshold < 1, "deletion-threshold",
        "\(threshold) is not in 0 ..< 1; from 1 on every token would be dropped")
      try require(deletes && deletion == .gate, "deletion-threshold", "it needs a model with a deletion gate")
    }
  }

  private func validateGranularities(_ shape: ModelShape) throws(CrosspointError) {
    try require(!granularities.isEmpty, "granularities", "none are given; 1 is no pooling")
    for window in granularities {
      try require(
        (1...shape.context).contains(window), "granularities",
        "a window of \(window) tokens in a context of \(shape.context)")
    }
    try require(
      Set(granularities).count == granularities.count, "granularities", "one of them is given twice")
    if let granularity = evaluation.granularity {
      try require(
        granularities.contains(granularity), "granularity", "\(granularity) is not among \(granularities)")
    }
    if merge != .off {
      try require(
        (1...shape.context).contains(mergeWindow), "merge-window",
        "\(mergeWindow) tokens in a context of \(shape.context)")
    }
  }

  private func validateRouting(_ shape: ModelShape) throws(CrosspointError) {
    try requireShare(pruneShare, "prune-share")
    try requireShare(pruneProtect, "prune-protect")
    if let groupsPerToken {
      try require(
        groupsPerToken >= 1 && groupsPerToken <= Double(max(1, routerGroups)), "groups-per-token",
        "\(groupsPerToken) is not in 1…\(routerGroups), the router's groups")
      try require(
        routerGroupLimit == 1, "groups-per-token", "it stands instead of --router-group-limit \(routerGroupLimit)")
    }
    try require(
      prune == .off || secondExpert == .all, "second-expert", "random does not go together with --prune; take one")
  }

  private func requireShare(_ value: Double, _ name: String) throws(CrosspointError) {
    try require(value >= 0 && value <= 1, name, "\(value) is not in 0…1")
  }
}
