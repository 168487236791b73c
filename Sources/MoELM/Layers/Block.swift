import Crosspoint

/// `x += attention(norm(x)); x += feedForward(norm(x))`, where the feed-forward is dense, or a mixture of experts with or
/// without shared experts, which work while the exchange is under way.
final class Block {
  private let number: Int
  private let width: Int
  private let firstNorm: LayerNorm
  private let attention: Attention
  private let secondNorm: LayerNorm
  /// The feed-forward of a dense block, or the shared experts of a block with routed ones.
  private let dense: DenseFeedForward?
  /// The mixture of experts, where the block has one.
  let experts: StagedExperts?
  private let pool: BufferPool
  /// What the two halves read, kept for the backward pass.
  private let attended = FloatBuffer()
  private var fed: TokenBatch
  private let slope = FloatBuffer()

  static func sharedParameters(_ block: Int, _ shape: ModelShape, _ options: ExchangeOptions)
    throws(CrosspointError) -> [ParameterSpecification]
  {
    let name = "block\(block)"
    let experts =
      shape.hasExperts(block: block) ? try StagedExperts.sharedParameters(name, shape, options) : []
    return LayerNorm.parameters(name + ".norm1", width: shape.width)
      + Attention.parameters(name + ".attention", shape) + LayerNorm.parameters(name + ".norm2", width: shape.width)
      + experts
      + (shape.denseExperts(block: block) > 0
        ? FeedForward.parameters(name, shape, experts: shape.denseExperts(block: block)) : [])
  }

  static func expertParameters(_ block: Int, _ shape: ModelShape, _ experts: Range<Int>) -> [ParameterSpecification] {
    shape.hasExperts(block: block) ? MoELayer.expertParameters("block\(block)", shape, experts) : []
  }

  /// Collective where the block has experts.
  init(
    _ block: Int, _ shape: ModelShape, shared: ParameterSet, experts: ParameterSet, fabric: any Fabric,
    options: ExchangeOptions, over transport: ExpertTransportKind, pool: BufferPool
  ) throws(CrosspointError) {
    let name = "block\(block)"
    number = block
    width = shape.width
    self.pool = pool
    firstNorm = LayerNorm(name + ".norm1", width: width, in: shared)
    attention = Attention(name + ".attention", shape, in: shared)
    secondNorm = LayerNorm(name + ".norm2", width: width, in: shared)
    fed = try TokenBatch(rows: 0, hidden: width)
    dense = shape.denseExperts(block: block) > 0 ? DenseFeedForward(name, in: shared) : nil
    self.experts =
      shape.hasExperts(block: block)
      ? try StagedExperts(
        name, shape, shared: shared, experts: experts, fabric: fabric, options: options,
        over: transport, layer: block) : nil
  }

  /// Changes x in place. Collective where the block has experts.
  /// - Parameter keyBias: see ``Attention``.
  /// - Returns: the losses of experts and stages.
  func forward(_ x: Matrix, keyBias: UnsafePointer<Float>? = nil, _ pass: Pass) throws(CrosspointError) -> Losses {
    try pass.clock.measure(.attention, block: number) { () throws(CrosspointError) in
      let attended = try attended.matrix(x.rows, width)
      try firstNorm.forward(x, into: attended)
      try attention.forward(attended, keyBias: keyBias, addingTo: x)
      if fed.rows != x.rows { fed = try TokenBatch(uninitializedRows: x.rows, hidden: width, pool: pool) }
      try secondNorm.forward(x, into: Matrix(fed))
    }
    let input = Matrix(fed)
    func feed(_ rows: Range<Int>) throws(CrosspointError) {
      try pass.clock.measure(.dense, block: number) { () throws(CrosspointError) in
        try dense?.forward(input, rows: rows, addingTo: x)
      }
    }
    guard let experts else {
      try feed(0..<x.rows)
      return Losses()
    }
    var slices = RowSlices(rows: dense == nil ? 0 : x.rows)
    return try experts.forward(fed, addingTo: x, pass) { () throws(CrosspointError) in
      try slices.next { rows throws(CrosspointError) in try feed(rows) }
    }
  }

  /// Changes `dx` from the gradient of what left the block to that of what entered it. Collective like `forward`.
  /// - Parameter keyBiasGradients: see ``Attention``.
  func backward(
    _ dx: borrowing TokenBatch, addingTo keyBiasGradients: UnsafeMutablePointer<Float>? = nil, _ pass: Pass
  ) throws(CrosspointError) {
    let stream = Matrix(dx)
    let slope = try slope.matrix(dx.rows, width)
    let input = Matrix(fed)
    func feedBackward(_ rows: Range<Int>) throws(CrosspointError) {
      try pass.clock.measure(.dense, block: number) { () throws(CrosspointError) in
        try dense?.backward(input, rows: rows, dy: stream, into: slope)
      }
    }
    if let experts {
      var slices = RowSlices(rows: dense == nil ? 0 : dx.rows)
      try experts.backward(fed, dy: dx, pass, into: slope, accumulate: dense != nil) { () throws(CrosspointError) in
        try slices.next { rows throws(CrosspointError) in try feedBackward(rows) }
      }
    } else {
      try feedBackward(0..<dx.rows)
    }
    try pass.clock.measure(.attention, block: number) { () throws(CrosspointError) in
      try secondNorm.backward(slope, addingTo: stream)
      try attention.backward(attended.matrix(dx.rows, width), dy: stream, into: slope, addingTo: keyBiasGradients)
      try firstNorm.backward(slope, addingTo: stream)
    }
  }

  /// Gives back what the exchange keeps for a backward pass.
  func forget() {
    experts?.forget()
  }
}
