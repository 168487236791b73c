import Crosspoint

/// What a run writes and how often, beside the training itself.
///
/// Files are rank 0's: where the others are told to write ``metrics`` and ``summary`` does not matter. All else must be the
/// same on every rank.
public struct RunOptions: Sendable {
  /// One JSON line per step.
  public var metrics: String?
  /// One JSON object at the end.
  public var summary: String?
  /// Where checkpoints are written and read.
  public var checkpoint: String?
  /// Steps between checkpoints; 0 writes one at the end only.
  public var checkpointEvery = 0
  /// Steps between evaluations; 0 evaluates at the end only.
  public var evalEvery = 250
  /// Whether to continue from the checkpoint if there is one.
  public var resume = false

  public init() {}

  /// Checks them on every rank, and that every rank has the same. Collective.
  /// - Throws: as ``validate()``, and `ranksDisagree` naming an option that differs.
  func agree(on fabric: any Fabric) throws(CrosspointError) {
    try fabric.together(operation: "options") { () throws(CrosspointError) in try validate() }
    try fabric.requireEqual(
      [
        ("checkpoint", checkpoint ?? "none"), ("checkpoint-every", "\(checkpointEvery)"),
        ("eval-every", "\(evalEvery)"), ("resume", "\(resume)"),
      ], operation: "options")
  }

  /// - Throws: `invalidArgument` for counts below zero, or checkpoint options without a path.
  public func validate() throws(CrosspointError) {
    for (name, value) in [("checkpoint-every", checkpointEvery), ("eval-every", evalEvery)] {
      try require(value >= 0, name, "\(value); it must not be negative")
    }
    try require(checkpoint != nil || !resume, "resume", "it needs --checkpoint PATH to continue from")
    try require(checkpoint != nil || checkpointEvery == 0, "checkpoint-every", "it needs --checkpoint PATH")
  }
}

/// What a run came to: the contents of `--summary`.
public struct RunSummary: Codable, Sendable {
  public var valBitsPerByte: Double
  public var steps: Int
  /// Over all steps, and over the last quarter of them.
  public var rowsSentFraction: Double
  public var rowsSentFractionLastQuarter: Double
  /// Bytes on the wire per byte that fp32 would have taken without stages, likewise.
  public var wireFraction: Double
  public var wireFractionLastQuarter: Double
  public var wireBytes: Double
  public var uncompressedBytes: Double
  /// Mean over all steps.
  public var stepSeconds: Double
  /// Of them in stages, the mean over ranks, waiting not included.
  public var stageSeconds: Double
  /// What every stage let through in training, and over the last quarter of the steps.
  public var stages: [StageCount]
  public var stagesLastQuarter: [StageCount]
  /// What every stage let through in the evaluation that `valBitsPerByte` is of.
  public var evaluatedStages: [StageCount]
  /// Rows and bytes of that evaluation, likewise: dispatch and combine alone.
  public var evaluatedRowsSentFraction: Double
  public var evaluatedWireFraction: Double
  /// Share of the tokens that the deletion left out in that evaluation.
  public var deletionRate: Double?
  /// Share of the experts after the first that trims left, over the last quarter of the steps.
  public var keptSecondExperts: Double?
  /// The held-out loss at every granularity.
  public var granularities: [GranularityLoss]
  /// How alike the granularities choose on the held-out text (Jaccard index), a mean over layers, and of each layer;
  /// likewise in training, where every step takes all granularities.
  public var jaccard: Double?
  public var overlaps: [Overlap]
  public var trainingOverlapsLastQuarter: [Overlap]
  public var ranks: Int
  /// Whether a signal ended the run before its last step.
  public var interrupted: Bool
  /// What a policy chose in the end for each layer and transfer, and why; empty without one.
  public var choices: [String: String]
  public var options: [String: String]
}
