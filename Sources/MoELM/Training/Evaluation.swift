import Crosspoint
import CrosspointFiles

/// `moe-lm eval`: the held-out loss of a checkpoint.
package enum Evaluation {
  /// Takes the model's sizes from the checkpoint, everything else from `options`. Collective.
  ///
  /// - Returns: bits per byte and what the checkpoint's training came to.
  /// - Throws: `file` for what is no whole checkpoint, `checkpointMismatch` for one whose tensors are not those of its sizes,
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
    try fabric.together(operation: "checkpoint") { () throws(CrosspointError) in try trainer.restore(checkpoint) }
    return trainer.summary(heldOut: try trainer.measure(all: true))
  }
}

extension Checkpoint {
  /// Before a model takes memory: whether its tensors are those that its sizes make.
  /// - Throws: `checkpointMismatch` naming the first that is missing or has another size.
  fileprivate func requireTensors(of options: TrainingOptions) throws(CrosspointError) {
    let shape = options.shape
    // Every block and every expert has a tensor: so many specifications are worth making.
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
    let sizes: [String: WritableKeyPath<TrainingOptions, Int>] = [
      "context": \.shape.context, "width": \.shape.width, "blocks": \.shape.blocks, "heads": \.shape.heads,
      "experts": \.shape.experts, "expert-width": \.shape.expertWidth, "top-k": \.shape.topK,
      "shared-experts": \.shape.sharedExperts,
    ]
    func read<T>(_ key: String, _ parse: (String) -> T?) throws(CrosspointError) -> T {
      guard let value = checkpoint.options[key].flatMap(parse) else {
        throw fileError("checkpoint", path, "does not say its \(key)")
      }
      return value
    }
    for (key, size) in sizes { self[keyPath: size] = try read(key, Int.init) }
    shape.objective = try read("objective", Objective.init)
    shape.maskFraction = try read("mask-fraction", Float.init)
    shape.softmax1 = try read("softmax1", Bool.init)
    seed = try read("seed", UInt64.init)
    try shape.stages.adopt { key throws(CrosspointError) in try read(key) { $0 } }
  }
}
