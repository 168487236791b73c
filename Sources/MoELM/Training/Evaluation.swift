import Crosspoint

/// `moe-lm eval`: the held-out loss of a checkpoint.
public enum Evaluation {
  /// Takes the model's sizes from the checkpoint, everything else from `options`. Collective.
  ///
  /// - Returns: bits per byte and what the checkpoint's training came to.
  /// - Throws: `file` for what is no whole checkpoint, `invalidArgument` for a text too short for one batch.
  public static func run(
    fabric: any Fabric, data: String?, options: TrainingOptions, checkpoint path: String, summary file: String? = nil
  ) throws(CrosspointError) -> RunSummary {
    let checkpoint = try Checkpoint.load(path, fabric: fabric)
    let options = try fabric.together(operation: "checkpoint") { [options] () throws(CrosspointError) in
      var options = options
      try options.adopt(checkpoint.header.configuration, path: path)
      return options
    }
    try options.agree(on: fabric)
    let corpus = try Corpus.load(path: data, context: options.shape.context, batch: options.batch, fabric: fabric)
    let trainer = try Trainer(fabric: fabric, corpus: corpus, options: options)
    try fabric.together(operation: "checkpoint") { () throws(CrosspointError) in try trainer.restore(checkpoint) }
    trainer.progress = checkpoint.header.progress
    let summary = trainer.summary(heldOut: try trainer.measure(all: true))
    try fabric.onRoot(operation: "summary") { () throws(CrosspointError) in
      if let file { try writeJSON(summary, to: file, argument: "summary") }
    }
    return summary
  }
}

extension TrainingOptions {
  /// Takes over the model and the stages that a checkpoint was written with.
  fileprivate mutating func adopt(_ configuration: [[String]], path: String) throws(CrosspointError) {
    let sizes: [String: WritableKeyPath<TrainingOptions, Int>] = [
      "context": \.shape.context, "width": \.shape.width, "blocks": \.shape.blocks, "heads": \.shape.heads,
      "experts": \.shape.experts, "expert-width": \.shape.expertWidth, "top-k": \.shape.topK,
      "shared-experts": \.shape.sharedExperts,
    ]
    func read<T>(_ key: String, _ parse: (String) -> T?) throws(CrosspointError) -> T {
      guard let value = configuration.first(where: { $0.first == key })?.last.flatMap(parse) else {
        throw fileError("checkpoint", path, "does not say its \(key)", reason: false)
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
