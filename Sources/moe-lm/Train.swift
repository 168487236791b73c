import ArgumentParser
import Crosspoint
import CrosspointOptions
import Foundation
import MoELM

struct Train: RankCommand {
  static let configuration = CommandConfiguration(abstract: "Trains a model.")

  @OptionGroup(title: "Job") var arguments: JobArguments
  @OptionGroup(title: "Model") var model: ModelShape
  @OptionGroup(title: "Stages") var stages: StageOptions
  @OptionGroup(title: "Training") var learning: LearningOptions
  @OptionGroup(title: "Files") var run: RunOptions
  @OptionGroup(title: "Exchange") var exchange: ExchangeArguments

  var cluster: SimulatedCluster? { arguments.cluster }
  var deadline: Duration { .seconds(arguments.deadline) }

  func job() throws(CrosspointError) -> @Sendable (any Fabric) throws -> Void {
    var options = TrainingOptions()
    options.shape = model
    options.shape.stages = stages
    options.reading = arguments.reading
    options.learning = learning
    options.exchange = exchange.exchangeOptions
    options.seed = options.exchange.seed
    var run = run
    run.summary = arguments.summary
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
  @OptionGroup(title: "Stages") var stages: StageEvaluation
  @OptionGroup(title: "Exchange") var exchange: ExchangeArguments

  @Option(help: ArgumentHelp("The checkpoint to measure, which rank 0 reads for all.", valueName: "file"))
  var checkpoint: String

  var cluster: SimulatedCluster? { arguments.cluster }
  var deadline: Duration { .seconds(arguments.deadline) }

  func job() throws(CrosspointError) -> @Sendable (any Fabric) throws -> Void {
    var options = TrainingOptions()
    options.exchange = exchange.exchangeOptions
    options.reading = arguments.reading
    options.shape.stages.evaluation = stages
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
