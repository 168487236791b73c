import Crosspoint

/// Trains one model on all ranks of a fabric: every rank makes one and calls it in step with the others.
///
/// ```swift
/// let trainer = try Trainer(fabric: fabric, corpus: corpus, options: options)
/// while trainer.progress.step < options.steps { print(try trainer.step().bitsPerByte) }
/// print(try trainer.evaluate())
/// ```
package final class Trainer {
  /// What one step did, summed over ranks.
  package struct StepReport: Sendable {
    /// Mean training loss of the step's batch, without the load-balance loss.
    package var bitsPerByte: Double
    package var loadBalance: Double
    /// The stages' own losses.
    package var stageLoss: Double
    /// Of all gradients together, before clipping.
    package var gradientNorm: Double
    package var learningRate: Float
    package var traffic: Traffic
    /// Of every stage, over all layers.
    package var stages: [StageCount]
    /// Share of the tokens that the deletions leave out or, in a soft step, would; a mean over layers.
    package var deletionRate: Double?
    /// Share of the experts after the first that trims left.
    package var keptFurtherExperts: Double?
    /// How alike the granularities choose, a mean over layers.
    package var jaccard: Double?
    /// Seconds in stages, the mean over ranks, waiting not included.
    package var stageSeconds: Double
    /// Whether any rank was asked to stop.
    package var shouldStop: Bool
  }

  package let options: TrainingOptions
  package internal(set) var progress = Progress()
  let fabric: any Fabric
  let corpus: Corpus
  let model: LanguageModel
  private let optimiser: AdamW
  /// What tokens are known by, where the exchange has a memory.
  private let labels: TokenLabels?
  let clock: StepClock
  /// This rank's sequences.
  var batch = Batch()
  /// What the last step or evaluation moved, until the ranks' sums replace it.
  private(set) var moved = Movement()
  /// What is summed over ranks in a step.
  private var totals: [Double] = []

  /// Collective.
  /// - Throws: `invalidArgument` for options that make no training, `ranksDisagree` for options that differ between ranks, and
  ///   what making an exchange throws.
  package init(fabric: any Fabric, corpus: Corpus, options: TrainingOptions) throws(CrosspointError) {
    try options.agree(on: fabric)
    self.fabric = fabric
    self.corpus = corpus
    var shape = options.shape
    var options = options
    options.exchange = try options.exchange.decidingCopies(
      topK: shape.topK, layout: ExpertLayout(experts: shape.experts, hidden: shape.routedWidth), fabric: fabric)
    self.options = options
    shape.stages.seed = options.seed
    model = try LanguageModel(
      fabric: fabric, shape: shape, options: options.exchange, over: options.transport, seed: options.seed)
    optimiser = AdamW(weightDecay: options.weightDecay)
    clock = StepClock(blocks: shape.blocks)
    labels = options.exchange.memory > 0 ? TokenLabels(corpus.bytes) : nil
  }

  /// One step of training. Collective.
  ///
  /// - Parameter stopRequested: whether this rank was asked to stop; all ranks learn of it.
  /// - Throws: `nonFinite` when the loss or a gradient is no number any more, and what the exchange throws.
  package func step(stopRequested: Bool = false) throws(CrosspointError) -> StepReport {
    clock.start()
    defer { clock.stop() }
    readBatch()
    model.zeroGradients()
    let losses = try propagate()
    try model.settle()
    try clock.measure(.allReduce) { () throws(CrosspointError) in
      try fabric.allreduce(model.shared.gradients, operation: "gradients")
    }

    collectMovement()
    totals.removeAll(keepingCapacity: true)
    totals.append(losses.surprise)
    totals.append(losses.loadBalance)
    totals.append(losses.stages)
    totals.append(squaredNorm(model.experts.gradients))
    totals.append(stopRequested ? 1 : 0)
    moved.forEachNumber { totals.append($0) }
    try clock.measure(.allReduce) { () throws(CrosspointError) in try fabric.sum(&totals, operation: "totals") }
    let norm = (totals[3] + squaredNorm(model.shared.gradients)).squareRoot()
    let nats = totals[0] / Double(options.batch * options.shape.predictionsPerSequence)
    guard nats.isFinite, norm.isFinite else {
      // Sums over ranks: every rank has the same.
      throw fabric.cause(
        of: CrosspointError(
          .nonFinite, operation: "train", argument: "loss",
          "\(nats) at step \(progress.step) with gradients of norm \(norm); try a lower --learning-rate"),
        operation: "train")
    }
    let rate = options.learning.rate(step: progress.step)
    let scale = norm > Double(options.clip) ? options.clip / Float(norm) : 1
    try clock.measure(.optimiser) { () throws(CrosspointError) in
      optimiser.update(model.shared, learningRate: rate, gradientScale: scale, step: progress.step)
      optimiser.update(model.experts, learningRate: rate, gradientScale: scale, step: progress.step)
    }
    try clock.measure(.stages) { () throws(CrosspointError) in try model.stepStages(step: progress.step) }
    advance(by: totals[5...])
    return StepReport(
      bitsPerByte: nats * bitsPerNat, loadBalance: totals[1], stageLoss: totals[2], gradientNorm: norm,
      learningRate: rate, traffic: moved.traffic, stages: moved.stages,
      deletionRate: model.deletionRate ?? moved.stages.deletionRate,
      keptFurtherExperts: moved.stages.keptFurtherExperts, jaccard: moved.overlaps.mean,
      stageSeconds: moved.stageSeconds / Double(fabric.rankCount), shouldStop: totals[4] > 0)
  }

  /// Forward and backward over this rank's sequences.
  func propagate() throws(CrosspointError) -> Losses {
    var losses = Losses()
    try forEachPass { pass throws(CrosspointError) in
      losses += try model.forward(batch, pass) * pass.weight
      try model.backward(batch, predictions: options.batch * options.shape.predictionsPerSequence, pass)
    }
    return losses
  }

  /// The last of each MoE layer.
  var routings: [Routing] { model.layers.map(\.layer.decision.routing) }

  /// One per MoE layer; none over the plain transport.
  var exchanges: [ExpertExchange] { model.layers.compactMap { ($0.layer.transport as? CrosspointTransport)?.exchange } }

  /// What the policies chose, by layer and transfer; empty without one.
  var choices: [String: String] {
    var choices: [String: String] = [:]
    for exchange in exchanges {
      for kind in TransferKind.allCases {
        if let choice = exchange.statistics.choices[kind.rawValue] {
          choices["block\(exchange.layer).\(kind)"] = "\(choice)"
        }
      }
    }
    return choices
  }

  /// Calls `body` with the passes of a training step: every granularity, or one that all ranks draw alike.
  func forEachPass(_ body: (Pass) throws(CrosspointError) -> Void) throws(CrosspointError) {
    let stages = options.shape.stages
    var granularities = stages.granularities[...]
    if stages.granularitySchedule == .sampled {
      var generator = context(isTraining: true).sharedGenerator(seed: options.seed)
      let drawn = Int(generator.next() % UInt64(granularities.count))
      granularities = granularities[drawn...drawn]
    }
    for granularity in granularities {
      try body(
        pass(
          isTraining: true, granularity: granularity, isFirst: granularity == granularities.first,
          weight: 1 / Float(granularities.count)))
    }
  }

  /// What the model must know of the batch that was read.
  func pass(isTraining: Bool, granularity: Int, isFirst: Bool = true, weight: Float = 1) -> Pass {
    Pass(
      context: context(isTraining: isTraining),
      share: Float(batch.rows) / Float(options.batch * options.shape.context), granularity: granularity,
      isFirstOfBatch: isFirst, weight: weight, labels: labels?.of(batch, context: options.shape.context) ?? [],
      clock: clock)
  }

  private func context(isTraining: Bool) -> StageContext {
    StageContext(step: progress.step, isTraining: isTraining, batch: fabric.rank)
  }

  /// Makes ``moved`` what this rank moved since the last call, over all layers.
  func collectMovement() {
    moved.clear()
    for layer in model.layers { layer.takeMovement(into: &moved) }
  }

  /// - Parameter numbers: what all ranks moved.
  private func advance(by numbers: ArraySlice<Double>) {
    var rest = numbers.makeIterator()
    moved.forEachNumber { $0 = rest.next()! }
    if progress.step == options.steps - options.steps / 4 { progress.beforeLastQuarter.hold(progress.moved) }
    progress.step += 1
    guard progress.moved.isEmpty else { return progress.moved.add(numbers) }
    progress.moved = moved
    // No step after the first allocates.
    progress.beforeLastQuarter.reserve(for: moved)
  }
}

/// `1 / ln 2`.
let bitsPerNat = 1.442_695_040_888_963_4

extension Fabric {
  /// Sums of two numbers over ranks. Collective.
  func sum(
    _ first: Double, _ second: Double, operation: StaticString
  ) throws(CrosspointError) -> (Double, Double) {
    var sums = (first, second)
    try withUnsafeMutableBytes(of: &sums) { bytes throws(CrosspointError) in
      try allreduce(bytes.assumingMemoryBound(to: Double.self), operation: operation)
    }
    return sums
  }

  /// Replaces each number by its sum over ranks. Collective.
  func sum(_ values: inout [Double], operation: StaticString) throws(CrosspointError) {
    try values.withUnsafeMutableBufferPointer { values throws(CrosspointError) in
      try allreduce(values, operation: operation)
    }
  }
}
