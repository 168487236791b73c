import Crosspoint
import CrosspointFiles

/// `moe-lm eval`: the held-out loss of a checkpoint.
package enum Evaluation {
  /// Takes the model's sizes, and with a memory what it remembers, from the checkpoint, everything else from `options`.
  /// Collective.
  ///
  /// - Returns: bits per byte and what the checkpoint's training came to.
  /// - Throws: `file` for what is no whole checkpoint, `checkpointMismatch` for one whose tensors are not those of its sizes, or
  ///   with a memory for one of another exchange,
  ///   `invalidArgument` for a text too short for one batch.
  package static func run(
    fabric: any Fabric, data: String?, options: TrainingOptions, checkpoint path: String, summary file: String? = nil
  ) throws(CrosspointError) -> RunSummary {
    try fabric.onRoot(operation: "summary") { () throws(CrosspointError) in
      if let file { _ = try FileDestination(file, argument: "summary") }
    }
    let checkpoint = try Checkpoint.load(path, fabric: fabric)
    let summary = try run(fabric: fabric, options: options, checkpoint, path: path) { shape throws(CrosspointError) in
      try Corpus.load(path: data, context: shape.context, batch: options.batch, fabric: fabric)
    }
    try fabric.onRoot(operation: "summary") { () throws(CrosspointError) in
      if let file { try writeJSON(summary, to: file, argument: "summary", patience: fabric.deadline / 2) }
    }
    return summary
  }

  /// The same, of a checkpoint that every rank has. Collective.
  package static func run(
    fabric: any Fabric, options: TrainingOptions, _ checkpoint: Checkpoint, path: String,
    corpus: (ModelShape) throws(CrosspointError) -> Corpus
  ) throws(CrosspointError) -> RunSummary {
    let options = try fabric.together(operation: "checkpoint") { [options] () throws(CrosspointError) in
      var options = options
      try options.adopt(checkpoint, path: path)
      return options
    }
    try options.agree(on: fabric)
    let corpus = try corpus(options.shape)
    try fabric.together(operation: "checkpoint") { () throws(CrosspointError) in
      try checkpoint.requireTensors(of: options)
    }
    let trainer = try Trainer(fabric: fabric, corpus: corpus, options: options)
    try fabric.together(operation: "checkpoint") { () throws(CrosspointError) in
      try trainer.restore(checkpoint)
      if options.exchange.memory > 0 { try trainer.restoreMemories(checkpoint, path: path) }
    }
    return trainer.summary(heldOut: try trainer.measure(all: true))
  }
}

extension Trainer {
  /// Evaluation learns nothing: what rows are coded by is what training has remembered.
  fileprivate func restoreMemories(_ checkpoint: Checkpoint, path: String) throws(CrosspointError) {
    for pair in options.exchange.pairs where pair.key != "seed" && checkpoint.options[pair.key] != pair.value {
      throw CrosspointError(
        .checkpointMismatch, operation: "eval", argument: pair.key,
        "\(pair.value) here, \(checkpoint.options[pair.key] ?? "unknown") in \(path): with a memory give the same as in training"
      )
    }
    try restoreExchanges(checkpoint, path: path)
  }
}

extension Checkpoint {
  /// Before a model takes memory: whether its tensors are those that its sizes make.
  /// - Throws: `checkpointMismatch` naming the first that is missing or has another size.
  fileprivate func requireTensors(of options: TrainingOptions) throws(CrosspointError) {
    let shape = options.shape
    // Every block and every expert has a tensor: no more specifications are made.
    guard max(shape.blocks, shape.experts) <= header.tensors.count else {
      throw CrosspointError(
        .checkpointMismatch, operation: "resume", argument: "blocks",
        "\(shape.blocks) with \(shape.experts) experts, and \(header.tensors.count) tensors")
    }
    try require(
      try LanguageModel.sharedSpecifications(shape, options.exchange)
        + LanguageModel.expertSpecifications(shape, rank: 0, of: 1))
  }
}

extension TrainingOptions {
  /// Takes over the model and the stages that a checkpoint was written with.
  fileprivate mutating func adopt(_ checkpoint: Checkpoint, path: String) throws(CrosspointError) {
    let evaluation = shape.stages.evaluation
    shape = try ModelShape(path: path, checkpoint.options)
    shape.stages = try StageOptions(path: path, checkpoint.options)
    shape.stages.evaluation = evaluation
    guard let text = checkpoint.options["seed"], let seed = UInt64(text) else {
      throw fileError("checkpoint", path, "does not say its seed")
    }
    self.seed = seed
  }
}
