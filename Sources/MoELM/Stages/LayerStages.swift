import Crosspoint

/// The token stages of one layer: a pipeline, its parameters among the model's, and what it cost.
final class LayerStages {
  let pipeline: TokenPipeline
  /// Which tokens of the next batch a deletion that decides elsewhere keeps; all if `nil`.
  var keep: [Bool]?
  /// Seconds spent in the stages since the last ``takeSeconds()``; waiting for other ranks is not counted.
  private var seconds = 0.0
  private let parameters: Parameter?
  private let fabric: any Fabric
  private let shape: ModelShape
  /// How the tokens lie before any stage.
  private var layout = RowLayout(sequences: 0, length: 0)

  /// What every rank holds: nothing if no stage learns.
  static func parameters(_ name: String, _ shape: ModelShape) throws(CrosspointError) -> [ParameterSpecification] {
    let start = try shape.stages.pipeline(name, shape).parameters
    guard !start.isEmpty else { return [] }
    return [
      ParameterSpecification(
        name: name + ".stages", rows: 1, columns: start.count, start: .values(start),
        rate: shape.stages.deletionLearningRate)
    ]
  }

  init(_ name: String, _ shape: ModelShape, in set: ParameterSet, fabric: any Fabric) throws(CrosspointError) {
    self.fabric = fabric
    self.shape = shape
    pipeline = try shape.stages.pipeline(name, shape)
    parameters = pipeline.parameters.isEmpty ? nil : set[name + ".stages"]
  }

  var isEmpty: Bool { pipeline.stages.isEmpty }

  /// The stages' own losses of the last batch, means over this rank's tokens.
  var loss: Double { pipeline.auxiliaryLoss }

  var deletion: DeletionGate? { pipeline.stages.lazy.compactMap { $0 as? DeletionGate }.first }

  var pooling: WindowPooling? { pipeline.stages.lazy.compactMap { $0 as? WindowPooling }.first }

  /// Collective.
  func reduce(_ x: borrowing TokenBatch, _ pass: Pass) throws(CrosspointError) -> TokenRows {
    var watch = Watch()
    defer { seconds += watch.seconds }
    if layout.rows != x.rows { layout = RowLayout(sequences: x.rows / shape.context, length: shape.context) }
    if let parameters { pipeline.parameters = Array(parameters.value.floats) }
    if shape.stages.weighsAttention { deletion?.keep = keep ?? [Bool](repeating: true, count: x.rows) }
    try pooling?.use(granularity: pass.granularity)
    do throws(CrosspointError) {
      return try pipeline.reduce(x, layout, pass.context) { [fabric] counts throws(CrosspointError) in
        watch.pause()
        defer { watch.resume() }
        try fabric.sum(&counts, operation: "stages")
      }
    } catch {
      // It throws on every rank if on any.
      throw fabric.cause(of: error, operation: "stages")
    }
  }

  func expand(_ outputs: consuming TokenBatch) throws(CrosspointError) -> TokenBatch {
    let watch = Watch()
    defer { seconds += watch.seconds }
    return try pipeline.expand(outputs)
  }

  func expandBackward(_ dy: borrowing TokenBatch) throws(CrosspointError) -> TokenBatch {
    let watch = Watch()
    defer { seconds += watch.seconds }
    return try pipeline.expandBackward(dy)
  }

  func reduceBackward(
    _ dRows: borrowing TokenBatch, tokens: borrowing TokenBatch, _ pass: Pass
  ) throws(CrosspointError) -> TokenBatch {
    let watch = Watch()
    defer { seconds += watch.seconds }
    let dTokens = try pipeline.reduceBackward(dRows, tokens: tokens, auxiliaryScale: pass.share * pass.weight)
    if let parameters {
      for (place, gradient) in pipeline.gradients.enumerated() { parameters.gradient.base[place] += gradient }
      pipeline.resetGradients()
    }
    return dTokens
  }

  /// Lets controllers move, once per optimiser step. Collective.
  func step() throws(CrosspointError) {
    try pipeline.step { [fabric] counts throws(CrosspointError) in try fabric.sum(&counts, operation: "stages") }
  }

  /// Adds what every stage let through since the last call; returns how many stages there are.
  func takeCounts(into moved: inout Movement) -> Int {
    for place in pipeline.statistics.indices {
      moved.add(StageCount(pipeline.statistics[place]), at: place)
      pipeline.statistics[place].reset()
    }
    return pipeline.statistics.count
  }

  func takeSeconds() -> Double {
    defer { seconds = 0 }
    return seconds
  }
}

/// A stopwatch that can rest.
private struct Watch {
  private var start = ContinuousClock.now
  private var before = Duration.zero
  private var isRunning = true

  var seconds: Double { (isRunning ? before + (ContinuousClock.now - start) : before).inSeconds }

  mutating func pause() {
    before += ContinuousClock.now - start
    isRunning = false
  }

  mutating func resume() {
    start = ContinuousClock.now
    isRunning = true
  }
}
