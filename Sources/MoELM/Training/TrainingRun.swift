import Crosspoint
import CrosspointFiles
import Foundation

/// A whole run of `moe-lm train`: steps, evaluations, checkpoints, and what is written about them.
package final class TrainingRun {
  private let trainer: Trainer
  private let run: RunOptions
  private let speaks: Bool
  private var metrics: MetricsFile?
  private var routings: RoutingRecord?
  private var line = ProgressLine()
  /// Smoothed, for tokens per second and the time left.
  private var stepSeconds: Double?
  private var lastCheckpoint = -1

  /// Collective: makes the model, resumes if told to and if there is a checkpoint, opens the metrics.
  ///
  /// - Parameter quiet: whether rank 0, too, prints nothing.
  /// - Throws: what is wrong with options, text, checkpoint or files, on every rank.
  package init(
    fabric: any Fabric, corpus: Corpus, options: TrainingOptions, run: RunOptions, quiet: Bool = false
  ) throws(CrosspointError) {
    try run.agree(on: fabric)
    self.run = run
    speaks = fabric.rank == 0 && !quiet
    trainer = try Trainer(fabric: fabric, corpus: corpus, options: options)
    if run.resume, let path = run.checkpoint {
      if try fabric.existsOnRoot(path) {
        try trainer.resume(path)
        say("continuing after step \(trainer.progress.step) of \(path)")
      } else {
        say("no checkpoint at \(path) yet: starting from the beginning")
      }
    }
    let done = trainer.progress.step
    try fabric.onRoot(operation: "metrics") { () throws(CrosspointError) in
      // What cannot be written in the end is known now.
      for (path, argument) in [
        (run.checkpoint, "checkpoint"), (run.summary, "summary"), (run.recordRouting, "record-routing"),
        (run.trace, "trace"),
      ] {
        if let path { _ = try FileDestination(path, argument: argument) }
      }
      if let path = run.metrics { metrics = try MetricsFile(path, keeping: done, patience: fabric.deadline / 2) }
    }
    routings = try fabric.together(operation: "record") { () throws(CrosspointError) in
      guard let path = run.recordRouting else { return nil }
      return try RoutingRecord(path, steps: max(1, options.steps - done), of: options, fabric: fabric)
    }
  }

  /// Trains to the last step, or until a signal asks it to stop. Collective.
  package func train() throws(CrosspointError) -> RunSummary {
    let options = trainer.options
    let parameters = trainer.parameterCount
    say(
      "\(parameters) parameters, \(options.batch * options.shape.context) tokens per step, "
        + "\(trainer.fabric.rankCount) ranks, \(options.exchange)")
    var held: HeldOut?
    var stopped = false
    let first = trainer.progress.step + 1
    if run.trace != nil { trainer.clock.trace = try TraceRecord(trainer.fabric) }
    while trainer.progress.step < options.steps, !stopped {
      let report = try timedStep()
      try routings?.append(trainer.routings)
      let step = trainer.progress.step
      stopped = report.shouldStop
      let isLast = step == options.steps || stopped
      let evaluates = isLast || (run.evalEvery > 0 && step.isMultiple(of: run.evalEvery))
      held = evaluates && !stopped ? try trainer.measure(all: step == options.steps) : nil
      try record(report, held: held?.bitsPerByte, isLast: isLast)
      if run.checkpointEvery > 0, step.isMultiple(of: run.checkpointEvery) { try saveCheckpoint() }
    }
    try saveCheckpoint()
    try routings?.write()
    if let path = run.trace { try trainer.clock.writeTrace(to: path, first: first, trainer.fabric) }
    if stopped, let path = run.checkpoint {
      say("stopped after step \(trainer.progress.step) of \(options.steps); \(path) continues with --resume")
    } else if stopped {
      say("stopped after step \(trainer.progress.step) of \(options.steps); nothing is kept without --checkpoint")
    }
    let final = if let held { held } else { try trainer.measure(all: true) }
    let patience = trainer.fabric.deadline / 2
    let summary = trainer.summary(
      heldOut: final, phases: try trainer.clock.report(trainer.fabric),
      interrupted: trainer.progress.step < options.steps)
    try trainer.fabric.onRoot(operation: "summary") { () throws(CrosspointError) in
      if let path = run.summary { try writeJSON(summary, to: path, argument: "summary", patience: patience) }
    }
    return summary
  }

  private func timedStep() throws(CrosspointError) -> Trainer.StepReport {
    let start = ContinuousClock.now
    let report = try trainer.step(stopRequested: StopSignal.check())
    let seconds = (ContinuousClock.now - start).inSeconds
    trainer.progress.seconds += seconds
    stepSeconds = stepSeconds.map { 0.95 * $0 + 0.05 * seconds } ?? seconds
    return report
  }

  /// Rank 0 writes a step down. Collective.
  private func record(_ report: Trainer.StepReport, held: Double?, isLast: Bool) throws(CrosspointError) {
    try trainer.fabric.onRoot(operation: "metrics") { () throws(CrosspointError) in
      try write(report, held: held, isLast: isLast)
    }
  }

  private func write(_ report: Trainer.StepReport, held: Double?, isLast: Bool) throws(CrosspointError) {
    let (options, progress, traffic) = (trainer.options, trainer.progress, trainer.progress.moved.traffic)
    let seconds = stepSeconds ?? 0
    let rate = Double(options.batch * options.shape.context) / max(seconds, 1e-9)
    let entry = Metrics(
      step: progress.step, bitsPerByte: report.bitsPerByte, valBitsPerByte: held, loadBalance: report.loadBalance,
      stageLoss: report.stageLoss, gradientNorm: report.gradientNorm, learningRate: Double(report.learningRate),
      tokensPerSecond: rate,
      seconds: progress.seconds, wireBytes: traffic.wireBytes, uncompressedBytes: traffic.uncompressedBytes,
      rowsSent: traffic.rowsSent, rowsTotal: traffic.rowsOffered, residualEnergy: report.traffic.residualEnergy,
      stages: report.stages, deletionRate: report.deletionRate,
      keptFurtherExperts: report.keptFurtherExperts, jaccard: report.jaccard, stageSeconds: report.stageSeconds)
    try metrics?.append(entry)
    if speaks {
      line.show(
        entry, of: options.steps, tokensPerSecond: rate, secondsLeft: seconds * Double(options.steps - progress.step),
        always: held != nil || isLast)
    }
  }

  private func saveCheckpoint() throws(CrosspointError) {
    guard let path = run.checkpoint, lastCheckpoint != trainer.progress.step else { return }
    try trainer.saveCheckpoint(path)
    lastCheckpoint = trainer.progress.step
  }

  private func say(_ text: String) {
    if speaks { line.say(text) }
  }
}

extension Trainer {
  /// What the run came to so far.
  func summary(heldOut: HeldOut, phases: PhaseSeconds = .init(), interrupted: Bool = false) -> RunSummary {
    let (all, last) = (progress.moved, progress.moved - progress.beforeLastQuarter)
    let steps = Double(max(1, progress.step))
    return RunSummary(
      valBitsPerByte: heldOut.bitsPerByte, steps: progress.step, rowsSentFraction: all.traffic.rowsSentFraction,
      rowsSentFractionLastQuarter: last.traffic.rowsSentFraction, wireFraction: all.traffic.wireFraction,
      wireFractionLastQuarter: last.traffic.wireFraction, wireBytes: all.traffic.wireBytes,
      uncompressedBytes: all.traffic.uncompressedBytes,
      stepSeconds: progress.seconds / steps, phaseSeconds: phases.seconds, alltoallShare: phases.alltoallShare,
      stageSeconds: all.stageSeconds / Double(fabric.rankCount) / steps,
      stages: all.stages, stagesLastQuarter: last.stages, evaluatedStages: heldOut.stages,
      evaluatedRowsSentFraction: heldOut.traffic.rowsSentFraction, evaluatedWireFraction: heldOut.traffic.wireFraction,
      deletionRate: heldOut.stages.deletionRate, keptFurtherExperts: last.stages.keptFurtherExperts,
      granularities: heldOut.granularities, jaccard: heldOut.overlaps.mean, overlaps: heldOut.overlaps,
      trainingOverlapsLastQuarter: last.overlaps, ranks: fabric.rankCount,
      interrupted: interrupted, choices: choices,
      options: Dictionary(options.pairs.map { ($0.key, $0.value) }, uniquingKeysWith: { $1 }))
  }

  /// Floats of the whole model, over all ranks.
  var parameterCount: Int {
    let experts = (try? LanguageModel.expertSpecifications(options.shape, rank: 0, of: 1)) ?? []
    return model.shared.count + experts.reduce(0) { $0 + $1.count }
  }
}

extension Fabric {
  /// Whether rank 0 sees a file there. Collective.
  fileprivate func existsOnRoot(_ path: String) throws(CrosspointError) -> Bool {
    try shareFromRoot(operation: "resume") { access(path, F_OK) == 0 ? [1] : [0] } == [1]
  }
}

extension Duration {
  var inSeconds: Double { Double(components.seconds) + Double(components.attoseconds) * 1e-18 }
}
