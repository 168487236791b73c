import ArgumentParser
import Crosspoint

/// What a run writes and how often, besides the training itself.
///
/// Files are rank 0's: where the others are told to write ``metrics`` and ``summary`` does not matter. All else must be the
/// same on every rank.
package struct RunOptions: CommandLineOptions {
  package static let standard = parseOrExit([])

  @Option(help: ArgumentHelp("One JSON line per step, which rank 0 writes.", valueName: "file"))
  package var metrics: String?

  @Option(help: ArgumentHelp("Where the checkpoint is written, and read by --resume.", valueName: "file"))
  package var checkpoint: String?

  @Option(
    help: ArgumentHelp(
      "Which experts every token chose, for xpoint bench exchange --routing: int32 [steps, ranks, layers, rows, top-k].",
      valueName: "R.npy"))
  package var recordRouting: String?

  @Option(
    help: ArgumentHelp(
      "When each rank did what in the first \(TraceRecord.steps) steps, for Perfetto (ui.perfetto.dev): one file for all ranks.",
      valueName: "file"))
  package var trace: String?

  @Option(help: "Steps between checkpoints; 0 writes one at the end only.")
  package var checkpointEvery = 0

  @Option(help: "Steps between evaluations; 0 evaluates at the end only.")
  package var evalEvery = 250

  @Flag(help: "Continue from the checkpoint if there is one.")
  package var resume = false

  /// One JSON object at the end.
  package var summary: String?

  package init() {}

  /// Checks them on every rank, and that every rank has the same. Collective.
  /// - Throws: as ``check()``, and `ranksDisagree` naming an option that differs.
  func agree(on fabric: any Fabric) throws(CrosspointError) {
    try fabric.together(operation: "options") { () throws(CrosspointError) in try check() }
    try fabric.requireEqual(record.filter { $0.key != "metrics" }, operation: "options")
  }

  /// - Throws: `invalidArgument` for counts below zero, or checkpoint options without a path.
  package func check() throws(CrosspointError) {
    for (name, value) in [("checkpoint-every", checkpointEvery), ("eval-every", evalEvery)] {
      try require(value >= 0, name, "\(value); it must not be negative")
    }
    try require(checkpoint != nil || !resume, "resume", "it needs --checkpoint PATH to continue from")
    try require(checkpoint != nil || checkpointEvery == 0, "checkpoint-every", "it needs --checkpoint PATH")
  }
}

/// What a run came to: the contents of `--summary`.
package struct RunSummary: Codable, Sendable {
  package var valBitsPerByte: Double
  package var steps: Int
  /// Over all steps, and over the last quarter of them.
  package var rowsSentFraction: Double
  package var rowsSentFractionLastQuarter: Double
  /// Bytes on the wire per byte that fp32 would have taken without stages, likewise.
  package var wireFraction: Double
  package var wireFractionLastQuarter: Double
  package var wireBytes: Double
  package var uncompressedBytes: Double
  /// Mean over all steps.
  package var stepSeconds: Double
  /// Of a step by phase, means over ranks and over the steps since the run began or was resumed; they add up to the step.
  /// Those of a block begin with its name, those of a transfer end with the part of it: `block1.experts`,
  /// `block1.dispatch.wait`, `optimiser`. Empty for an evaluation.
  package var phaseSeconds: [String: Double]
  /// Share of the step that the four transfers take, this rank's own work meanwhile not included.
  package var alltoallShare: Double
  /// Of them in stages, the mean over ranks, waiting not included.
  package var stageSeconds: Double
  /// What every stage let through in training, and over the last quarter of the steps.
  package var stages: [StageCount]
  package var stagesLastQuarter: [StageCount]
  /// What every stage let through in the evaluation that `valBitsPerByte` is of.
  package var evaluatedStages: [StageCount]
  /// Rows and bytes of that evaluation, likewise: dispatch and combine alone.
  package var evaluatedRowsSentFraction: Double
  package var evaluatedWireFraction: Double
  /// Share of the tokens that the deletion left out in that evaluation.
  package var deletionRate: Double?
  /// Share of the experts after the first that trims left, over the last quarter of the steps.
  package var keptFurtherExperts: Double?
  /// The held-out loss at every granularity.
  package var granularities: [GranularityLoss]
  /// How alike the granularities choose on the held-out text (Jaccard index), a mean over layers, and of each layer;
  /// likewise in training, where every step takes all granularities.
  package var jaccard: Double?
  package var overlaps: [Overlap]
  package var trainingOverlapsLastQuarter: [Overlap]
  package var ranks: Int
  /// Whether a signal ended the run before its last step.
  package var interrupted: Bool
  /// What a policy chose in the end for each layer and transfer, and why; empty without one.
  package var choices: [String: String]
  package var options: [String: String]
}
