import Crosspoint

/// A byte-level transformer with a mixture of experts in every second block.
///
/// This rank's share of it: all dense tensors, which every rank holds alike, and the experts that the layout gives it.
final class LanguageModel {
  let shape: ModelShape
  /// Tensors that every rank holds; their gradients are summed over ranks.
  let shared: ParameterSet
  /// Tensors of this rank's experts; their gradients are complete.
  let experts: ParameterSet
  private let embedding: Embedding
  private let blocks: [Block]
  /// Holds the rate of all gates together, unless each layer's holds its own.
  private let deletionControl: DeletionControl?
  /// The deletion gate in its attention form.
  let keyGate: KeyGate?
  private let norm: LayerNorm
  private let prediction: Prediction

  private let productMemory: ProductMemory
  private let pool = BufferPool()
  private let stream = FloatBuffer()
  private let final = FloatBuffer()
  private let slope = FloatBuffer()

  static func sharedSpecifications(_ shape: ModelShape, _ options: ExchangeOptions) throws(CrosspointError)
    -> [ParameterSpecification]
  {
    var blocks: [ParameterSpecification] = []
    for block in 0..<shape.blocks { blocks += try Block.sharedParameters(block, shape, options) }
    return Embedding.parameters("embedding", shape) + blocks + (try KeyGate.parameters("keygate", shape))
      + LayerNorm.parameters("norm", width: shape.width) + Prediction.parameters("prediction", shape)
  }

  static func expertSpecifications(_ shape: ModelShape, rank: Int, of ranks: Int) throws(CrosspointError)
    -> [ParameterSpecification]
  {
    let layout = try ExpertLayout(experts: shape.experts, hidden: shape.width)
    let local = layout.experts(of: rank, rankCount: ranks)
    return (0..<shape.blocks).flatMap { Block.expertParameters($0, shape, local) }
  }

  /// Collective: makes one transport per MoE layer.
  init(
    fabric: any Fabric, shape: ModelShape, options: ExchangeOptions, over transport: ExpertTransportKind, seed: UInt64
  ) throws(CrosspointError) {
    try shape.check()
    self.shape = shape
    // One rank may have less memory than the others.
    (productMemory, shared, experts) = try fabric.together(operation: "model") { () throws(CrosspointError) in
      let local = try Self.expertSpecifications(shape, rank: fabric.rank, of: fabric.rankCount)
      return (
        try ProductMemory(), try ParameterSet(Self.sharedSpecifications(shape, options), seed: seed),
        try ParameterSet(local, seed: seed)
      )
    }
    embedding = Embedding("embedding", in: shared)
    var blocks: [Block] = []
    for block in 0..<shape.blocks {
      blocks.append(
        try Block(
          block, shape, shared: shared, experts: experts, fabric: fabric, options: options, over: transport,
          pool: pool))
    }
    self.blocks = blocks
    layers = blocks.compactMap(\.experts)
    gates = layers.compactMap(\.stages.deletion)
    let control = shape.stages.hasModelControl ? DeletionControl(shape.stages, fabric: fabric) : nil
    deletionControl = control
    keyGate =
      if let control, shape.stages.weighsAttention {
        try KeyGate("keygate", shape, in: shared, fabric: fabric, control: control)
      } else { nil }
    norm = LayerNorm("norm", width: shape.width, in: shared)
    prediction = Prediction("prediction", in: shared)
  }

  /// One per MoE layer.
  let layers: [StagedExperts]
  /// Those of the layers.
  private let gates: [DeletionGate]

  /// Reads a batch (whole sequences, possibly none) and measures how well it is predicted. Collective.
  func forward(_ batch: Batch, _ pass: Pass) throws(CrosspointError) -> Losses {
    precondition(batch.rows.isMultiple(of: shape.context), "whole sequences")
    let x = try stream.matrix(batch.rows, shape.width)
    try pass.clock.measure(.prediction) { () throws(CrosspointError) in embedding.forward(batch, into: x) }
    var losses = Losses()
    for (place, block) in blocks.enumerated() {
      if let keyGate, place == shape.stages.deletionBlock {
        losses.stages += try pass.clock.measure(.stages) { () throws(CrosspointError) in try keyGate.forward(x, pass) }
      }
      let gate = place >= shape.stages.deletionBlock ? keyGate : nil
      block.experts?.stages.keep = gate?.keep
      losses += try block.forward(x, keyBias: gate?.bias, pass)
    }
    losses.surprise = try pass.clock.measure(.prediction) { () throws(CrosspointError) in
      let y = try final.matrix(batch.rows, shape.width)
      try norm.forward(x, into: y)
      return try prediction.forward(y, batch)
    }
    return losses
  }

  /// Adds the gradients of the pass's loss. Collective; follows `forward`.
  /// - Parameter predictions: all that this pass's surprise is a mean over, those of all ranks.
  func backward(_ batch: Batch, predictions: Int, _ pass: Pass) throws(CrosspointError) {
    let dx = try TokenBatch(uninitializedRows: batch.rows, hidden: shape.width, pool: pool)
    try pass.clock.measure(.prediction) { () throws(CrosspointError) in
      let y = try final.matrix(batch.rows, shape.width)
      let slope = try slope.matrix(batch.rows, shape.width)
      try prediction.backward(y, batch, scale: pass.weight / Float(predictions), into: slope)
      dx.elements.update(repeating: 0)
      try norm.backward(slope, addingTo: Matrix(dx))
    }
    for (place, block) in blocks.enumerated().reversed() {
      let gate = place >= shape.stages.deletionBlock ? keyGate : nil
      try block.backward(dx, addingTo: gate?.biasGradients, pass)
      if place == shape.stages.deletionBlock { keyGate?.backward(addingTo: dx, pass) }
    }
    try pass.clock.measure(.prediction) { () throws(CrosspointError) in embedding.backward(batch, Matrix(dx)) }
  }

  /// Throws what went wrong so far on any rank and has not been thrown. Collective.
  func settle() throws(CrosspointError) { try layers.first?.layer.transport.settle() }

  /// After a forward pass that no backward pass follows.
  func forget() {
    for block in blocks { block.forget() }
  }

  /// Lets the stages' controllers move, once per optimiser step, counted from 0. Collective.
  func stepStages(step: Int) throws(CrosspointError) {
    if let deletionControl {
      var (scored, deleted) = keyGate?.takeCounts() ?? (0, 0)
      for gate in gates {
        let counts = gate.takeCounts()
        scored += counts.scored
        deleted += counts.deleted
      }
      try deletionControl.observe(scored: scored, deleted: deleted, step: step)
      supplyWeight()
    }
    for layer in layers {
      try layer.stages.step()
      try layer.layer.step()
    }
  }

  /// Share of the tokens that learned gates would have deleted in the last step, a mean over them; `nil` without one.
  var deletionRate: Double? {
    if let deletionControl { return deletionControl.controller.rate }
    let rates = gates.lazy.compactMap(\.controller?.rate)
    return rates.isEmpty ? nil : rates.reduce(0, +) / Double(rates.count)
  }

  private func supplyWeight() {
    guard let deletionControl else { return }
    for gate in gates { gate.suppliedWeight = deletionControl.weight }
  }

  /// What a checkpoint must hold besides tensors: the state of the controller of all gates, then of every layer's stages
  /// and of its trim.
  var stageState: [[UInt64]] {
    [deletionControl?.controller.state ?? []] + layers.flatMap { [$0.stages.pipeline.state, $0.layer.state] }
  }

  /// Continues from a ``stageState``.
  /// - Throws: `checkpointMismatch` naming the first stage that is another one there.
  func restoreStages(_ state: [[UInt64]]) throws(CrosspointError) {
    guard state.count == 1 + 2 * layers.count, state[0].count == stageState[0].count else {
      throw CrosspointError(
        .checkpointMismatch, operation: "resume", argument: "stages", "the checkpoint's stages are of another model")
    }
    try deletionControl?.restore(state[0])
    supplyWeight()
    for (place, layer) in layers.enumerated() {
      try layer.stages.pipeline.restore(state[1 + 2 * place])
      try layer.layer.restore(state[2 + 2 * place])
    }
  }

  func zeroGradients() {
    shared.zeroGradients()
    experts.zeroGradients()
  }
}
