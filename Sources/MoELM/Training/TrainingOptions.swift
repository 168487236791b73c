import Crosspoint

/// What decides how a training run goes: the same options, text and rank count give the same bits.
package struct TrainingOptions: Sendable {
  package var shape = ModelShape()
  /// Sequences per step over all ranks.
  package var batch = 32
  package var steps = 2000
  /// The largest learning rate: reached after the warm-up, falling to zero along a half cosine.
  package var learningRate: Float = 3e-3
  /// Steps of linear warm-up.
  package var warmup = 100
  /// AdamW's decay of matrices, per step and unit of learning rate.
  package var weightDecay: Float = 0.1
  /// The largest norm of all gradients together.
  package var clip: Float = 1
  /// Seeds parameters and data order.
  package var seed: UInt64 = 0
  /// Held-out windows of one context each that an evaluation reads; 0 reads all.
  package var evalWindows = 512
  package var exchange = ExchangeOptions()
  package var transport = ExpertTransportKind.crosspoint

  package init() {}

  /// Every option with its value: what checkpoints compare and summaries print.
  package var pairs: [(key: String, value: String)] {
    [
      ("context", "\(shape.context)"), ("width", "\(shape.width)"), ("blocks", "\(shape.blocks)"),
      ("heads", "\(shape.heads)"), ("experts", "\(shape.experts)"), ("expert-width", "\(shape.expertWidth)"),
      ("top-k", "\(shape.topK)"), ("shared-experts", "\(shape.sharedExperts)"),
      ("load-balance", "\(shape.loadBalance)"), ("objective", shape.objective.rawValue),
      ("mask-fraction", "\(shape.maskFraction)"), ("softmax1", "\(shape.softmax1)"), ("batch", "\(batch)"),
      ("steps", "\(steps)"), ("learning-rate", "\(learningRate)"), ("warmup", "\(warmup)"),
      ("weight-decay", "\(weightDecay)"), ("clip", "\(clip)"), ("eval-windows", "\(evalWindows)"),
      ("transport", transport.rawValue),
    ] + shape.stages.pairs + exchange.pairs.filter { $0.key != "seed" } + [
      ("seed", "\(seed)"), ("exchange-seed", "\(exchange.seed)"),
    ]
  }

  /// Checks them on every rank, and that every rank has the same. Collective.
  /// - Throws: `invalidArgument` naming the first option that makes no training, `ranksDisagree` naming one that differs.
  package func agree(on fabric: any Fabric) throws(CrosspointError) {
    try fabric.together(operation: "options") { () throws(CrosspointError) in try validate() }
    let stages = shape.stages
    try fabric.requireEqual(
      pairs + [
        ("deletion-threshold", stages.deletionThreshold.map { "\($0)" } ?? "default"),
        ("granularity", stages.evaluatedGranularity.map { "\($0)" } ?? "first"),
      ], operation: "options")
  }

  /// - Throws: `invalidArgument` naming the first option that makes no training.
  package func validate() throws(CrosspointError) {
    try shape.validate()
    try transport.validate(exchange)
    for (name, value, least) in [
      ("batch", batch, 1), ("steps", steps, 1), ("warmup", warmup, 0), ("eval-windows", evalWindows, 0),
    ] {
      try require(value >= least, name, "\(value); it must be at least \(least)")
    }
    try require(batch <= 1 << 20, "batch", "\(batch); the most is \(1 << 20)")
    for (name, value) in [("learning-rate", learningRate), ("clip", clip)] {
      try require(value > 0 && value.isFinite, name, "\(value); it must be above zero")
    }
    try require(weightDecay >= 0 && weightDecay.isFinite, "weight-decay", "\(weightDecay); it must not be negative")
  }

  /// The learning rate of a step, counted from 0.
  func learningRate(step: Int) -> Float {
    if step < warmup { return learningRate * Float(step + 1) / Float(warmup) }
    let progress = Double(step - warmup) / Double(max(1, steps - warmup))
    return learningRate * Float(0.5 * (1 + cosine(Double.pi * min(1, progress))))
  }
}
