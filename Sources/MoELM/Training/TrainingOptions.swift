import ArgumentParser
import Crosspoint

/// What a step of training or of evaluation reads.
package struct ReadingOptions: CommandLineOptions {
  package static let standard = parseOrExit([])

  @Option(help: "Sequences per step over all ranks.")
  package var batch = 32

  @Option(help: "Held-out windows that an evaluation reads; 0 reads all.")
  package var evalWindows = 512

  package init() {}
}

/// How the model learns.
package struct LearningOptions: CommandLineOptions {
  package static let standard = parseOrExit([])

  @Option(help: "crosspoint, or plain: pack + MPI_Alltoallv + unpack in fp32, without checks, to compare with.")
  package var transport = ExpertTransportKind.crosspoint

  @Option(help: "Steps of training.")
  package var steps = 2000

  @Option(help: "The largest learning rate, after the warm-up; it falls to zero along a half cosine.")
  package var learningRate: Float = 3e-3

  @Option(help: "Steps of linear warm-up.")
  package var warmup = 100

  @Option(help: "AdamW's weight decay of matrices, per step and unit of learning rate.")
  package var weightDecay: Float = 0.1

  @Option(help: "The largest norm of the gradient.")
  package var clip: Float = 1

  package init() {}
}

/// What decides how a training run goes: the same options, text and rank count give the same bits.
@dynamicMemberLookup
package struct TrainingOptions: Sendable {
  package var shape = ModelShape.standard
  package var reading = ReadingOptions.standard
  package var learning = LearningOptions.standard
  package var exchange = ExchangeOptions()
  /// Seeds parameters and data order.
  package var seed: UInt64 = 0

  package init() {}

  /// `options.batch` is `options.reading.batch`.
  package subscript<Value>(dynamicMember option: WritableKeyPath<ReadingOptions, Value>) -> Value {
    get { reading[keyPath: option] }
    set { reading[keyPath: option] = newValue }
  }

  /// `options.steps` is `options.learning.steps`.
  package subscript<Value>(dynamicMember option: WritableKeyPath<LearningOptions, Value>) -> Value {
    get { learning[keyPath: option] }
    set { learning[keyPath: option] = newValue }
  }

  /// Every option with its value: what checkpoints compare and summaries print. What evaluation alone uses is not among them.
  package var pairs: [(key: String, value: String)] {
    shape.record + shape.stages.record + reading.record + learning.record + exchange.pairs.filter { $0.key != "seed" }
      + [
        ("seed", "\(seed)"), ("exchange-seed", "\(exchange.seed)"),
      ]
  }

  /// Checks them on every rank, and that every rank has the same. Collective.
  /// - Throws: `invalidArgument` naming the first option that makes no training, `ranksDisagree` naming one that differs.
  package func agree(on fabric: any Fabric) throws(CrosspointError) {
    try fabric.together(operation: "options") { () throws(CrosspointError) in try validate() }
    try fabric.requireEqual(pairs + shape.stages.evaluation.record, operation: "options")
  }

  /// - Throws: `invalidArgument` naming the first option that makes no training.
  package func validate() throws(CrosspointError) {
    try shape.check()
    try learning.transport.validate(exchange)
    for (name, value, least) in [
      ("batch", reading.batch, 1), ("steps", learning.steps, 1), ("warmup", learning.warmup, 0),
      ("eval-windows", reading.evalWindows, 0),
    ] {
      try require(value >= least, name, "\(value); it must be at least \(least)")
    }
    try require(reading.batch <= 1 << 20, "batch", "\(reading.batch); the most is \(1 << 20)")
    for (name, value) in [("learning-rate", learning.learningRate), ("clip", learning.clip)] {
      try require(value > 0 && value.isFinite, name, "\(value); it must be above zero")
    }
    try require(
      learning.weightDecay >= 0 && learning.weightDecay.isFinite, "weight-decay",
      "\(learning.weightDecay); it must not be negative")
  }
}

extension LearningOptions {
  /// The learning rate of a step, counted from 0.
  func rate(step: Int) -> Float {
    if step < warmup { return learningRate * Float(step + 1) / Float(warmup) }
    let progress = Double(step - warmup) / Double(max(1, steps - warmup))
    return learningRate * Float(0.5 * (1 + cosine(Double.pi * min(1, progress))))
  }
}
