import ArgumentParser
import Crosspoint
import CrosspointOptions
import Foundation
import MoELM

extension ExpertTransportKind: ExpressibleByArgument {}

struct Train: RankCommand {
  static let configuration = CommandConfiguration(abstract: "Trains a model.")

  @OptionGroup(title: "Job") var arguments: JobArguments
  @OptionGroup(title: "Model") var model: ModelArguments
  @OptionGroup(title: "Stages") var stages: StageArguments
  @OptionGroup(title: "Exchange") var exchange: ExchangeArguments

  @Option(help: "crosspoint, or plain: pack + MPI_Alltoallv + unpack in fp32, without checks, to compare with.")
  var transport = ExpertTransportKind.crosspoint

  @Option(help: "Steps of training.")
  var steps = 2000

  @Option(help: "The largest learning rate, after the warm-up; it falls to zero along a half cosine.")
  var learningRate: Float = 3e-3

  @Option(help: "Steps of linear warm-up.")
  var warmup = 100

  @Option(help: "AdamW's weight decay of matrices.")
  var weightDecay: Float = 0.1

  @Option(help: "The largest norm of the gradient.")
  var clip: Float = 1

  @Option(help: ArgumentHelp("One JSON line per step, which rank 0 writes.", valueName: "file"))
  var metrics: String?

  @Option(help: ArgumentHelp("Where the checkpoint is written, and read by --resume.", valueName: "file"))
  var checkpoint: String?

  @Option(help: "Steps between checkpoints; 0 writes one at the end only.")
  var checkpointEvery = 0

  @Option(help: "Steps between evaluations; 0 evaluates at the end only.")
  var evalEvery = 250

  @Flag(help: "Continue from the checkpoint if there is one.")
  var resume = false

  var cluster: SimulatedCluster? { arguments.cluster }
  var deadline: Duration { .seconds(arguments.deadline) }

  func job() throws(CrosspointError) -> @Sendable (any Fabric) throws -> Void {
    var options = TrainingOptions()
    options.shape = model.shape
    options.shape.stages = stages.options
    options.exchange = exchange.exchangeOptions
    options.seed = exchange.seed
    options.batch = arguments.batch
    options.evalWindows = arguments.evalWindows
    options.transport = transport
    options.steps = steps
    options.learningRate = learningRate
    options.warmup = warmup
    options.weightDecay = weightDecay
    options.clip = clip
    var run = RunOptions()
    run.metrics = metrics
    run.summary = arguments.summary
    run.checkpoint = checkpoint
    run.checkpointEvery = checkpointEvery
    run.evalEvery = evalEvery
    run.resume = resume
    return { [options, run, data = arguments.data] fabric in
      // The deadline of those that wait for a rank which hangs passes first.
      let bound = UInt32(fabric.deadline.components.seconds) + 3
      StopSignal.install(
        bound: bound, report: "moe-lm: rank \(fabric.rank): signal: no step has answered it for \(bound) seconds")
      try options.agree(on: fabric)
      let corpus = try Corpus.load(path: data, context: options.shape.context, batch: options.batch, fabric: fabric)
      let summary = try TrainingRun(fabric: fabric, corpus: corpus, options: options, run: run).train()
      if fabric.rank == 0 { report(summary) }
    }
  }
}

struct Evaluate: RankCommand {
  static let configuration = CommandConfiguration(
    commandName: "eval", abstract: "Measures a checkpoint on held-out text.",
    discussion: """
      The model and its stages come from the checkpoint; the exchange is as the options say, so that a model trained with \
      compression can be measured without, and the other way round.
      """)

  @OptionGroup(title: "Job") var arguments: JobArguments
  @OptionGroup(title: "Stages") var stages: StageEvaluationArguments
  @OptionGroup(title: "Exchange") var exchange: ExchangeArguments

  @Option(help: ArgumentHelp("The checkpoint to measure, which rank 0 reads for all.", valueName: "file"))
  var checkpoint: String

  var cluster: SimulatedCluster? { arguments.cluster }
  var deadline: Duration { .seconds(arguments.deadline) }

  func job() throws(CrosspointError) -> @Sendable (any Fabric) throws -> Void {
    var options = TrainingOptions()
    options.exchange = exchange.exchangeOptions
    options.batch = arguments.batch
    options.evalWindows = arguments.evalWindows
    options.shape.stages.deletionThreshold = stages.deletionThreshold
    options.shape.stages.evaluatedGranularity = stages.granularity
    return { [options, checkpoint, files = (data: arguments.data, summary: arguments.summary)] fabric in
      let summary = try Evaluation.run(
        fabric: fabric, data: files.data, options: options, checkpoint: checkpoint, summary: files.summary)
      guard fabric.rank == 0 else { return }
      print(
        String(
          format: "held-out %.4f bits/byte after %d steps; %.1f %% of the rows and %.1f %% of the fp32 bytes sent here",
          summary.valBitsPerByte, summary.steps, 100 * summary.evaluatedRowsSentFraction,
          100 * summary.evaluatedWireFraction))
      reportEvaluation(summary)
    }
  }
}

/// What a run of training came to.
private func report(_ summary: RunSummary) {
  print(
    String(
      format: "%d steps, held-out %.4f bits/byte, %.1f %% of the rows and %.1f %% of the fp32 bytes sent, %.3f s/step",
      summary.steps, summary.valBitsPerByte, 100 * summary.rowsSentFraction, 100 * summary.wireFraction,
      summary.stepSeconds))
  reportPhases(summary)
  reportEvaluation(summary)
}

/// Where the time of a step went: milliseconds by phase over all blocks, and of each block's transfers.
private func reportPhases(_ summary: RunSummary) {
  func line(_ title: String, _ seconds: [Substring: Double]) {
    let phases = seconds.sorted { $0.value > $1.value }.map { String(format: "%@ %.2f", "\($0.key)", 1e3 * $0.value) }
    print("\(title): " + phases.joined(separator: ", "))
  }
  var (phases, transfers): ([Substring: Double], [Substring: [Substring: Double]]) = ([:], [:])
  for (name, seconds) in summary.phaseSeconds {
    let parts = name.split(separator: ".")
    if parts.count == 3 {
      phases["all-to-all", default: 0] += seconds
      transfers[parts[0] + " " + parts[1], default: [:]][parts[2]] = seconds
    } else {
      phases[parts.last!, default: 0] += seconds
    }
  }
  line("ms of a step", phases)
  for (name, parts) in transfers.sorted(by: { $0.key < $1.key }) { line("  \(name)", parts) }
  print(String(format: "all-to-all takes %.1f %% of a step", 100 * summary.alltoallShare))
}

/// What stages did on the held-out text, every granularity, and what a policy chose.
private func reportEvaluation(_ summary: RunSummary) {
  for stage in summary.evaluatedStages {
    print(String(format: "%@: %.1f %% let through in evaluation", stage.name, 100 * stage.fraction))
  }
  if summary.granularities.count > 1 {
    let losses = summary.granularities.map { String(format: "%d: %.4f", $0.granularity, $0.valBitsPerByte) }
    let alike = summary.jaccard.map { String(format: ", experts chosen alike %.3f (Jaccard)", $0) } ?? ""
    print("held-out bits/byte by granularity " + losses.joined(separator: "  ") + alike)
  }
  for (place, choice) in summary.choices.sorted(by: { $0.key < $1.key }) { print("\(place): \(choice)") }
}
