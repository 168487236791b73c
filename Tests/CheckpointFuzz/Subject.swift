import CrosspointCore
import CrosspointExchange
import CrosspointFabric
import CrosspointPolicy
import Foundation
import MoELM

/// A tiny run of one rank, and a checkpoint of it.
final class Subject {
  let original: CheckpointFile
  private let fabric: any Fabric
  private let text: [UInt8]
  private let options: TrainingOptions
  private let trainer: Trainer

  /// One for each part that a checkpoint may have: plain, with gates and thresholds, with a learned compensation, with
  /// policies, with granularities and merging. Collective.
  static func all(fabric: any Fabric, text: [UInt8], folder: String) throws -> [Subject] {
    let changes: [(inout TrainingOptions) -> Void] = [
      { _ in },
      {
        $0.shape.stages.deletionRate = 0.3
        $0.shape.stages.deletionWarmup = 0
        $0.shape.stages.prune = .auto
      },
      {
        $0.exchange = ExchangeOptions(compression: .crossPolytope(), compensation: .lowRank(2))
      },
      { $0.exchange.policy = .budget(bytes: 0.5) },
      {
        $0.shape.stages.granularities = [1, 2]
        $0.shape.stages.granularityShift = true
        $0.shape.stages.merge = .rate(0.2)
        $0.shape.stages.mergeWindow = 2
      },
    ]
    return try changes.enumerated().map { place, change in
      var options = TrainingOptions()
      (options.shape.context, options.shape.width, options.shape.blocks, options.shape.heads) = (4, 4, 2, 1)
      (options.shape.experts, options.shape.expertWidth) = (2, 4)
      (options.batch, options.steps, options.warmup, options.evalWindows) = (2, 12, 2, 2)
      change(&options)
      return try Subject(fabric: fabric, text: text, options: options, path: "\(folder)/\(place)")
    }
  }

  private init(fabric: any Fabric, text: [UInt8], options: TrainingOptions, path: String) throws {
    (self.fabric, self.text, self.options) = (fabric, text, options)
    let corpus = try Corpus(text, context: options.shape.context, batch: options.batch)
    trainer = try Trainer(fabric: fabric, corpus: corpus, options: options)
    for _ in 0..<10 { _ = try trainer.step() }
    try trainer.saveCheckpoint(path)
    original = CheckpointFile(try [UInt8](Data(contentsOf: URL(fileURLWithPath: path))))
  }

  /// Trains another step from a checkpoint, or measures it. Collective.
  func goOn(from bytes: [UInt8], evaluating: Bool) throws(CrosspointError) {
    let checkpoint = try fabric.together(operation: "checkpoint") { () throws(CrosspointError) in
      try Checkpoint(bytes, path: "changed")
    }
    if evaluating {
      // Without a policy, which would time the machine first.
      var options = options
      options.exchange = ExchangeOptions()
      _ = try Evaluation.run(fabric: fabric, options: options, checkpoint, path: "changed") {
        [text, options, fabric] shape throws(CrosspointError) in
        try fabric.together(operation: "data") { () throws(CrosspointError) in
          try Corpus(text, context: shape.context, batch: options.batch)
        }
      }
    } else {
      try trainer.resume(checkpoint, path: "changed")
      if trainer.progress.step < options.steps { _ = try trainer.step() }
    }
  }
}
