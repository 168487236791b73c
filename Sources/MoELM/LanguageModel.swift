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
  private let norm: LayerNorm
  private let prediction: Prediction

  private let pool = BufferPool()
  private let stream = FloatBuffer()
  private let final = FloatBuffer()
  private let slope = FloatBuffer()

  /// The losses of a forward pass over this rank's tokens.
  struct Losses {
    /// Σ −ln p(byte wanted), in nats.
    var surprise = 0.0
    /// Sum over layers of the load-balance losses, each a mean over this rank's tokens.
    var loadBalance = 0.0
  }

  static func sharedSpecifications(_ shape: ModelShape, _ options: ExchangeOptions) -> [ParameterSpecification] {
    Embedding.parameters("embedding", shape)
      + (0..<shape.blocks).flatMap { Block.sharedParameters($0, shape, options) }
      + LayerNorm.parameters("norm", width: shape.width) + Prediction.parameters("prediction", shape)
  }

  static func expertSpecifications(_ shape: ModelShape, rank: Int, of ranks: Int) throws(CrosspointError)
    -> [ParameterSpecification]
  {
    let layout = try ExpertLayout(experts: shape.experts, hidden: shape.width)
    let local = layout.experts(of: rank, rankCount: ranks)
    return (0..<shape.blocks).flatMap { Block.expertParameters($0, shape, local) }
  }

  /// Collective: makes one exchange per MoE layer.
  init(fabric: any Fabric, shape: ModelShape, options: ExchangeOptions, seed: UInt64) throws(CrosspointError) {
    try shape.validate()
    self.shape = shape
    shared = ParameterSet(Self.sharedSpecifications(shape, options), seed: seed)
    experts = ParameterSet(
      try Self.expertSpecifications(shape, rank: fabric.rank, of: fabric.rankCount), seed: seed)
    embedding = Embedding("embedding", in: shared)
    var blocks: [Block] = []
    for block in 0..<shape.blocks {
      blocks.append(
        try Block(
          block, shape, shared: shared, experts: experts, fabric: fabric, options: options, pool: pool))
    }
    self.blocks = blocks
    norm = LayerNorm("norm", width: shape.width, in: shared)
    prediction = Prediction("prediction", in: shared)
  }

  /// One per MoE layer.
  var exchanges: [ExpertExchange] { blocks.compactMap(\.exchange) }

  /// Reads a batch (whole sequences, possibly none) and measures how well it is predicted. Collective.
  func forward(_ batch: Batch) throws(CrosspointError) -> Losses {
    precondition(batch.rows.isMultiple(of: shape.context), "whole sequences")
    let x = stream.matrix(batch.rows, shape.width)
    embedding.forward(batch, into: x)
    var losses = Losses()
    for block in blocks { losses.loadBalance += try block.forward(x) }
    let y = final.matrix(batch.rows, shape.width)
    norm.forward(x, into: y)
    losses.surprise = prediction.forward(y, batch)
    return losses
  }

  /// Adds the gradients of the mean loss over all predictions of `sequences`, the sequences of all ranks. Collective;
  /// follows `forward`.
  func backward(_ batch: Batch, sequences: Int) throws(CrosspointError) {
    let y = final.matrix(batch.rows, shape.width)
    let slope = slope.matrix(batch.rows, shape.width)
    prediction.backward(y, batch, scale: 1 / Float(sequences * shape.predictionsPerSequence), into: slope)
    let dx = try TokenBatch(uninitializedRows: batch.rows, hidden: shape.width, pool: pool)
    dx.elements.update(repeating: 0)
    norm.backward(slope, addingTo: Matrix(dx))
    let share = Float(batch.rows) / Float(sequences * shape.context)
    for block in blocks.reversed() { try block.backward(dx, share: share) }
    embedding.backward(batch, Matrix(dx))
  }

  /// After a forward pass that no backward pass follows.
  func forget() {
    for block in blocks { block.forget() }
  }

  func zeroGradients() {
    shared.zeroGradients()
    experts.zeroGradients()
  }
}
