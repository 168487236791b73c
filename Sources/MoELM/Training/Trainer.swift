import Crosspoint

/// Trains one model on all ranks of a fabric: every rank makes one and calls it in step with the others.
///
/// ```swift
/// let trainer = try Trainer(fabric: fabric, corpus: corpus, options: options)
/// while trainer.progress.step < options.steps { print(try trainer.step().bitsPerByte) }
/// print(try trainer.evaluate())
/// ```
public final class Trainer {
  /// What one step did, summed over ranks.
  public struct StepReport: Sendable {
    /// Mean training loss of the step's batch, without the load-balance loss.
    public var bitsPerByte: Double
    public var loadBalance: Double
    /// Of all gradients together, before clipping.
    public var gradientNorm: Double
    public var learningRate: Float
    public var traffic: Traffic
    /// Whether any rank was asked to stop.
    public var shouldStop: Bool
  }

  public let options: TrainingOptions
  public internal(set) var progress = Progress()
  let fabric: any Fabric
  let corpus: Corpus
  let model: LanguageModel
  private let optimiser: AdamW
  /// This rank's sequences.
  var batch = Batch()

  /// Collective.
  /// - Throws: `invalidArgument` for options that make no training, and what making an exchange throws.
  public init(fabric: any Fabric, corpus: Corpus, options: TrainingOptions) throws(CrosspointError) {
    try options.validate()
    self.fabric = fabric
    self.corpus = corpus
    self.options = options
    model = try LanguageModel(fabric: fabric, shape: options.shape, options: options.exchange, seed: options.seed)
    optimiser = AdamW(weightDecay: options.weightDecay)
  }

  /// One step of training. Collective.
  ///
  /// - Parameter stopRequested: whether this rank was asked to stop; all ranks learn of it.
  /// - Throws: `nonFinite` when the loss or a gradient is no number any more, and what the exchange throws.
  public func step(stopRequested: Bool = false) throws(CrosspointError) -> StepReport {
    readBatch()
    model.zeroGradients()
    let losses = try propagate()
    try fabric.allreduce(model.shared.gradients, operation: "gradients")

    let share = Double(batch.rows) / Double(options.batch * options.shape.context)
    var mine = [
      losses.surprise, losses.loadBalance * share, squaredNorm(model.experts.gradients), stopRequested ? 1 : 0,
    ]
    mine += takeTraffic().values
    let sums = try fabric.sum(mine, operation: "totals")
    let norm = (sums[2] + squaredNorm(model.shared.gradients)).squareRoot()
    let nats = sums[0] / Double(options.batch * options.shape.predictionsPerSequence)
    guard nats.isFinite, norm.isFinite else {
      throw CrosspointError(
        .nonFinite, operation: "train", argument: "loss",
        "\(nats) at step \(progress.step) with gradients of norm \(norm); try a lower --learning-rate")
    }
    let rate = options.learningRate(step: progress.step)
    let scale = norm > Double(options.clip) ? options.clip / Float(norm) : 1
    for set in [model.shared, model.experts] {
      optimiser.update(set, learningRate: rate, gradientScale: scale, step: progress.step)
    }
    let traffic = Traffic(sums[4...])
    advance(by: traffic)
    return StepReport(
      bitsPerByte: nats * bitsPerNat, loadBalance: sums[1], gradientNorm: norm, learningRate: rate, traffic: traffic,
      shouldStop: sums[3] > 0)
  }

  /// Mean bits per predicted byte over the held-out windows, the same windows and masks every time. Collective.
  public func evaluate() throws(CrosspointError) -> Double {
    let available = corpus.heldOutWindows
    let windows = options.evalWindows == 0 ? available : min(options.evalWindows, available)
    var nats = 0.0
    for start in stride(from: 0, to: windows, by: options.batch) {
      readHeldOut(start, count: min(options.batch, windows - start), of: windows)
      nats += try model.forward(batch).surprise
      model.forget()
    }
    _ = takeTraffic()  // not training's
    let total = try fabric.sum([nats], operation: "evaluate")[0]
    return total / Double(windows * options.shape.predictionsPerSequence) * bitsPerNat
  }

  /// Forward and backward over this rank's sequences.
  func propagate() throws(CrosspointError) -> LanguageModel.Losses {
    let losses = try model.forward(batch)
    try model.backward(batch, sequences: options.batch)
    return losses
  }

  /// This rank's traffic since the last call, over all layers.
  private func takeTraffic() -> Traffic {
    var traffic = Traffic()
    for exchange in model.exchanges {
      traffic = traffic + Traffic(exchange.statistics)
      exchange.statistics.reset()
    }
    return traffic
  }

  private func advance(by traffic: Traffic) {
    if progress.step == options.steps - options.steps / 4 { progress.trafficBeforeLastQuarter = progress.traffic }
    progress.step += 1
    progress.traffic = progress.traffic + traffic
  }
}

/// `1 / ln 2`.
let bitsPerNat = 1.442_695_040_888_963_4

extension Fabric {
  /// Sums of a few numbers over ranks. Collective.
  func sum(_ values: [Double], operation: StaticString) throws(CrosspointError) -> [Double] {
    var values = values
    try values.withUnsafeMutableBufferPointer { values throws(CrosspointError) in
      try allreduce(values, operation: operation)
    }
    return values
  }
}
