import Crosspoint

/// `x += attention(norm(x)); x += feedForward(norm(x))`, where the feed-forward is dense or a mixture of experts.
final class Block {
  private enum Second {
    case dense(FeedForward)
    case experts(MoELayer)
  }

  private let width: Int
  private let firstNorm: LayerNorm
  private let attention: Attention
  private let secondNorm: LayerNorm
  private let second: Second
  private let pool: BufferPool
  /// What the two halves read, kept for the backward pass.
  private let attended = FloatBuffer()
  private var fed: TokenBatch
  private let hidden = FloatBuffer()
  private let active = FloatBuffer()
  private let slope = FloatBuffer()

  static func sharedParameters(_ block: Int, _ shape: ModelShape, _ options: ExchangeOptions)
    -> [ParameterSpecification]
  {
    let name = "block\(block)"
    return LayerNorm.parameters(name + ".norm1", width: shape.width)
      + Attention.parameters(name + ".attention", shape) + LayerNorm.parameters(name + ".norm2", width: shape.width)
      + (shape.hasExperts(block: block)
        ? MoELayer.sharedParameters(name, shape, options) : FeedForward.parameters(name, shape))
  }

  static func expertParameters(_ block: Int, _ shape: ModelShape, _ experts: Range<Int>) -> [ParameterSpecification] {
    shape.hasExperts(block: block) ? MoELayer.expertParameters("block\(block)", shape, experts) : []
  }

  /// Collective where the block has experts.
  init(
    _ block: Int, _ shape: ModelShape, shared: ParameterSet, experts: ParameterSet, fabric: any Fabric,
    options: ExchangeOptions, pool: BufferPool
  ) throws(CrosspointError) {
    let name = "block\(block)"
    width = shape.width
    self.pool = pool
    firstNorm = LayerNorm(name + ".norm1", width: width, in: shared)
    attention = Attention(name + ".attention", shape, in: shared)
    secondNorm = LayerNorm(name + ".norm2", width: width, in: shared)
    fed = try TokenBatch(rows: 0, hidden: width)
    second =
      shape.hasExperts(block: block)
      ? .experts(
        try MoELayer(name, shape, shared: shared, experts: experts, fabric: fabric, options: options))
      : .dense(FeedForward(name, in: shared))
  }

  /// The exchange, where the block has experts.
  var exchange: ExpertExchange? {
    if case .experts(let layer) = second { layer.exchange } else { nil }
  }

  /// Changes x in place. Collective where the block has experts.
  /// - Returns: the load-balance loss, a mean over this rank's tokens.
  func forward(_ x: Matrix) throws(CrosspointError) -> Double {
    let attended = attended.matrix(x.rows, width)
    firstNorm.forward(x, into: attended)
    attention.forward(attended, addingTo: x)

    if fed.rows != x.rows { fed = try TokenBatch(uninitializedRows: x.rows, hidden: width, pool: pool) }
    secondNorm.forward(x, into: Matrix(fed))
    switch second {
    case .experts(let layer): return try layer.forward(fed, addingTo: x)
    case .dense(let layer):
      layer.forward(
        Matrix(fed), hidden: hidden.matrix(x.rows, layer.hidden), active: active.matrix(x.rows, layer.hidden),
        into: x, accumulate: true)
      return 0
    }
  }

  /// Changes `dx` from the gradient of what left the block to that of what entered it. Collective like `forward`.
  func backward(_ dx: borrowing TokenBatch, share: Float) throws(CrosspointError) {
    let stream = Matrix(dx)
    let slope = slope.matrix(dx.rows, width)
    switch second {
    case .experts(let layer): try layer.backward(fed, dy: dx, share: share, into: slope)
    case .dense(let layer):
      layer.backward(
        Matrix(fed), hidden: hidden.matrix(dx.rows, layer.hidden), active: active.matrix(dx.rows, layer.hidden),
        dy: stream, into: slope)
    }
    secondNorm.backward(slope, addingTo: stream)
    attention.backward(attended.matrix(dx.rows, width), dy: stream, into: slope)
    firstNorm.backward(slope, addingTo: stream)
  }

  /// Gives back what the exchange keeps for a backward pass.
  func forget() {
    if case .experts(let layer) = second { layer.forget() }
  }
}
