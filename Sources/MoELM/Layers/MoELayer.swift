import Crosspoint

/// A mixture of experts behind one ``ExpertExchange``: this rank routes its own tokens and runs its own experts.
final class MoELayer {
  let exchange: ExpertExchange
  private let fabric: any Fabric
  private let router: TopKRouter
  private let gate: Parameter
  /// What the exchange's compensation learns, if anything.
  private let compensation: Parameter?
  private let experts: [FeedForward]
  private let pool = BufferPool()

  private let logits = FloatBuffer()
  private let dLogits = FloatBuffer()
  private let hidden = FloatBuffer()
  private let active = FloatBuffer()
  private var decision: RoutingDecision?
  private var handle: DispatchHandle?

  /// What every rank holds.
  static func sharedParameters(_ name: String, _ shape: ModelShape, _ options: ExchangeOptions)
    -> [ParameterSpecification]
  {
    let gate = ParameterSpecification(
      name: name + ".gate", rows: shape.width, columns: shape.experts, start: .fanIn(shape.width))
    let start = Compensator.initialParameters(
      options.activeCompensation, experts: shape.experts, hidden: shape.width, seed: options.seed)
    guard !start.isEmpty else { return [gate] }
    let compensation = ParameterSpecification(
      name: name + ".compensation", rows: shape.experts, columns: start.count / shape.experts, start: .values(start))
    return [gate, compensation]
  }

  /// What the rank of these experts holds. An expert's name does not depend on its rank.
  static func expertParameters(_ name: String, _ shape: ModelShape, _ experts: Range<Int>) -> [ParameterSpecification] {
    experts.flatMap { FeedForward.parameters("\(name).expert\($0)", shape) }
  }

  /// Collective: makes the exchange.
  init(
    _ name: String, _ shape: ModelShape, shared: ParameterSet, experts set: ParameterSet, fabric: any Fabric,
    options: ExchangeOptions, layer: Int
  ) throws(CrosspointError) {
    self.fabric = fabric
    exchange = try ExpertExchange(
      fabric: fabric, layout: ExpertLayout(experts: shape.experts, hidden: shape.width), options: options,
      layer: layer)
    router = try TopKRouter(
      experts: shape.experts, topK: shape.topK, scoring: .softmaxThenTopK(renormalised: true),
      loadBalance: shape.loadBalance)
    gate = shared[name + ".gate"]
    compensation = exchange.compensator.parameters.isEmpty ? nil : shared[name + ".compensation"]
    experts = exchange.localExperts.map { FeedForward("\(name).expert\($0)", in: set) }
  }

  /// Adds the experts' weighted outputs to `y`. Collective.
  /// - Returns: the load-balance loss, a mean over this rank's tokens.
  func forward(_ x: borrowing TokenBatch, addingTo y: Matrix) throws(CrosspointError) -> Double {
    let logits = logits.matrix(x.rows, router.experts)
    multiply(Matrix(x), gate.value, into: logits)
    let decision = try router.route(logits: UnsafeBufferPointer(start: logits.base, count: logits.count)) {
      [fabric] counts throws(CrosspointError) in
      try counts.withUnsafeMutableBufferPointer { counts throws(CrosspointError) in
        try fabric.allreduce(counts, operation: "route")
      }
    }
    if let compensation {
      exchange.compensator.parameters.withUnsafeMutableBufferPointer {
        _ = $0.update(fromContentsOf: compensation.value.floats)
      }
    }
    let handle = try exchange.dispatch(x, decision.routing)
    let rows = handle.rows.rows
    let (hidden, active) = (hidden.matrix(rows, experts.hidden), active.matrix(rows, experts.hidden))
    let output = try TokenBatch(uninitializedRows: rows, hidden: x.hidden, pool: pool)
    forEachExpert(handle) { expert, range in
      expert.forward(
        Matrix(handle.rows)[rows: range], hidden: hidden[rows: range], active: active[rows: range],
        into: Matrix(output)[rows: range], accumulate: false)
    }
    let combined = try exchange.combine(output, handle)
    map(y.base, combined.base, into: y.base, count: y.count) { $0 + $1 }
    self.decision = decision
    self.handle = handle
    return decision.losses.loadBalance
  }

  /// Fills `dx` with `∂L/∂x`. Collective.
  /// - Parameter share: this rank's part of all tokens, which scales its load-balance loss.
  func backward(
    _ x: borrowing TokenBatch, dy: borrowing TokenBatch, share: Float, into dx: Matrix
  ) throws(CrosspointError) {
    guard let handle, let decision else { preconditionFailure("backward without forward") }
    let dOutput = try exchange.combineBackward(dy, handle)
    let rows = handle.rows.rows
    let (hidden, active) = (hidden.matrix(rows, experts.hidden), active.matrix(rows, experts.hidden))
    let dRows = try TokenBatch(uninitializedRows: rows, hidden: x.hidden, pool: pool)
    forEachExpert(handle) { expert, range in
      expert.backward(
        Matrix(handle.rows)[rows: range], hidden: hidden[rows: range], active: active[rows: range],
        dy: Matrix(dOutput)[rows: range], into: Matrix(dRows)[rows: range])
    }
    let dTokens = try exchange.dispatchBackward(dRows, handle)
    dx.base.update(from: dTokens.base, count: dx.count)

    let gradients = try router.backward(
      decision, topkWeightGradients: handle.topkWeightGradients, auxiliaryScale: share)
    let dLogits = dLogits.matrix(x.rows, router.experts)
    gradients.withUnsafeBufferPointer {
      _ = UnsafeMutableBufferPointer(start: dLogits.base, count: $0.count).update(from: $0)
    }
    multiply(Matrix(x).transposed, dLogits, into: gate.gradient, accumulate: true)
    multiply(dLogits, gate.value.transposed, into: dx, accumulate: true)
    if let compensation {
      for (i, gradient) in exchange.compensator.gradients.enumerated() { compensation.gradient.base[i] += gradient }
      exchange.compensator.resetGradients()
    }
  }

  /// Gives back what forward kept.
  func forget() {
    handle = nil
    decision = nil
  }

  private func forEachExpert(_ handle: DispatchHandle, _ body: (FeedForward, Range<Int>) -> Void) {
    var start = 0
    for (expert, rows) in zip(experts, handle.rowsPerExpert) {
      if rows > 0 { body(expert, start..<start + rows) }
      start += rows
    }
  }
}

extension [FeedForward] {
  /// Hidden floats of each; 0 on a rank without experts.
  fileprivate var hidden: Int { first?.hidden ?? 0 }
}

extension Matrix {
  init(_ batch: borrowing TokenBatch) { self.init(batch.base, batch.rows, batch.hidden) }

  var floats: UnsafeMutableBufferPointer<Float> { UnsafeMutableBufferPointer(start: base, count: count) }
}
