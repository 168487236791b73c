import Crosspoint

/// A mixture of experts behind one ``ExpertTransport``: this rank routes its own rows and runs its own experts.
final class MoELayer {
  let transport: any ExpertTransport
  private let fabric: any Fabric
  private let block: Int
  private let router: TopKRouter
  private let stages: StageOptions
  private let seed: UInt64
  /// The threshold of pruning where it moves.
  private(set) var prune: MovingThreshold?
  /// What a token pays for each group of experts beyond the first, if it does.
  private(set) var groupPrice: MovingThreshold?
  /// One for all granularities, or one for each.
  private let gates: [Int: Parameter]
  private let experts: [FeedForward]
  private let projection: LatentProjection
  /// How many times narrower rows travel than the model is wide.
  private let narrowing: Double

  private let logits = FloatBuffer()
  private let dLogits = FloatBuffer()
  private let hidden = FloatBuffer()
  private let active = FloatBuffer()
  private let activeGradient = FloatBuffer()
  /// The most rows that the last batch could have brought here.
  private var mostRows = 0
  private var traits = RowTraits()
  /// The routing of the last batch.
  private(set) var decision = RoutingDecision()
  /// This rank's part of all rows that were routed: what its load-balance loss, a mean over its own, counts.
  private var share: Float = 0

  /// What every rank holds.
  static func sharedParameters(_ name: String, _ shape: ModelShape, _ options: ExchangeOptions)
    -> [ParameterSpecification]
  {
    let gates = (shape.stages.separateRouters ? shape.stages.routers : [nil]).map {
      ParameterSpecification(
        name: gateName(name, $0), rows: shape.width, columns: shape.experts, start: .fanIn(shape.width))
    }
    let shared = gates + LatentProjection.parameters(name, shape)
    let start = Compensator.initialParameters(
      options.activeCompensation, experts: shape.experts, hidden: shape.routedWidth, seed: options.seed)
    guard !start.isEmpty else { return shared }
    let compensation = ParameterSpecification(
      name: name + ".compensation", rows: shape.experts, columns: start.count / shape.experts, start: .values(start))
    return shared + [compensation]
  }

  /// The tensor of a router; the first one's name says nothing of granularities.
  private static func gateName(_ name: String, _ granularity: Int?) -> String {
    granularity.map { "\(name).gate\($0)" } ?? name + ".gate"
  }

  /// What the rank of these experts holds. An expert's name does not depend on its rank.
  static func expertParameters(_ name: String, _ shape: ModelShape, _ experts: Range<Int>) -> [ParameterSpecification] {
    experts.flatMap { FeedForward.routedParameters("\(name).expert\($0)", shape) }
  }

  /// Collective: makes the transport.
  init(
    _ name: String, _ shape: ModelShape, shared: ParameterSet, experts set: ParameterSet, fabric: any Fabric,
    options: ExchangeOptions, over kind: ExpertTransportKind, layer: Int
  ) throws(CrosspointError) {
    self.fabric = fabric
    block = layer
    let layout = try ExpertLayout(experts: shape.experts, hidden: shape.routedWidth)
    transport =
      switch kind {
      case .crosspoint:
        try CrosspointTransport(fabric: fabric, layout: layout, options: options, layer: layer) {
          shared[name + ".compensation"]
        }
      case .plain: PlainExpertTransport(fabric: fabric, layout: layout)
      }
    stages = shape.stages
    seed = stages.seed(of: name)
    router = try stages.router(shape)
    prune = stages.prune == .auto ? .pruning(share: stages.pruneShare) : nil
    groupPrice = stages.groupsPerToken.map { .groupPrice(groups: $0) }
    gates = Dictionary(
      uniqueKeysWithValues: zip(stages.granularities, stages.routers).map { ($0, shared[Self.gateName(name, $1)]) })
    experts = transport.localExperts.map { FeedForward("\(name).expert\($0)", in: set) }
    projection = LatentProjection(name, shape, in: shared)
    narrowing = Double(shape.width) / Double(shape.routedWidth)
  }

  /// The experts' weighted outputs, one for each row. Collective.
  /// - Parameters:
  ///   - tokensPerRow: what each row counts in the load-balance loss; empty: one.
  ///   - work: what this rank does while its rows travel.
  /// - Returns: the outputs, and the load-balance loss: this rank's part of the mean over the tokens of all ranks.
  func forward(
    _ x: borrowing TokenBatch, tokensPerRow: [Int32] = [], _ pass: Pass, meanwhile work: LocalWork
  ) throws(CrosspointError) -> MoEOutput {
    let tokensOfAll = try pass.clock.measure(.router, block: block) { () throws(CrosspointError) in
      try route(x, tokensPerRow: tokensPerRow, pass)
    }
    let tokens = tokensPerRow.isEmpty ? Float(x.rows) : tokensPerRow.reduce(0) { $0 + Float($1) }
    share = tokensOfAll == 0 ? 0 : tokens / Float(tokensOfAll)
    try pass.clock.measure(.experts, block: block) { () throws(CrosspointError) in
      let sent = try projection.narrow(x)
      try pass.clock.measure(.dispatch, over: transport, block: block) { () throws(CrosspointError) in
        // Behind stages that drop or merge tokens, rows have no labels.
        let labels = pass.labels.count == sent.rows ? pass.labels : nil
        try transport.dispatch(sent, decision.routing, labels: labels, meanwhile: work)
      }
    }
    let rows = transport.rows.rows
    mostRows = Int(tokensOfAll) * min(router.topK, experts.count)
    let hidden = try hidden.matrix(rows, experts.hidden, mostRows: mostRows)
    let active = try active.matrix(rows, experts.hidden, mostRows: mostRows)
    try pass.clock.measure(.experts, block: block) { () throws(CrosspointError) in
      let output = try transport.outputs()
      for (expert, range) in expertRows {
        expert.forward(
          transport.rows[rows: range], hidden: hidden[rows: range], active: active[rows: range],
          into: Matrix(output)[rows: range], accumulate: false)
      }
    }
    let outputs = try pass.clock.measure(.experts, block: block) { () throws(CrosspointError) in
      let combined = try pass.clock.measure(.combine, over: transport, block: block) { () throws(CrosspointError) in
        try transport.combine()
      }
      return try projection.widen(combined)
    }
    return MoEOutput(outputs: outputs, loadBalance: decision.losses.loadBalance * Double(share))
  }

  /// Makes the decision; returns how many tokens all ranks route. Collective.
  private func route(
    _ x: borrowing TokenBatch, tokensPerRow: [Int32], _ pass: Pass
  ) throws(CrosspointError) -> Double {
    let gate = gate(pass)
    let logits = try logits.matrix(x.rows, router.experts)
    multiply(Matrix(x), gate.value, into: logits)
    traits.tokensPerRow = tokensPerRow
    if stages.prune != .off, stages.pruneProtect > 0 { x.rowMagnitudes(into: &traits.importance) }
    if stages.secondExpert == .random {
      var generator = pass.context.batchGenerator(seed: seed)
      traits.seed = generator.next()
    }
    var tokensOfAll = 0.0
    do throws(CrosspointError) {
      try router(of: pass).route(
        logits: UnsafeBufferPointer(start: logits.base, count: logits.count), traits: traits, into: &decision
      ) { [block, fabric, router] counts throws(CrosspointError) in
        try pass.clock.measure(.allReduce, block: block) { () throws(CrosspointError) in
          try fabric.sum(&counts, operation: "route")
        }
        tokensOfAll = counts[router.experts]
      }
    } catch {
      // It throws on every rank if on any.
      throw fabric.cause(of: error, operation: "route")
    }
    if pass.context.isTraining {
      prune?.count(decision.trimmed, of: decision.routing.tokens * (router.topK - 1))
      groupPrice?.count(decision.routing.groupsUsed(of: stages.routerGroups), of: decision.routing.tokens)
    }
    return tokensOfAll
  }

  /// ∂L/∂x of each row. Collective.
  /// - Parameter work: what this rank does while gradients travel to the experts.
  func backward(
    _ x: borrowing TokenBatch, dy: borrowing TokenBatch, _ pass: Pass, meanwhile work: LocalWork
  ) throws(CrosspointError) -> TokenBatch {
    let dOutput = try pass.clock.measure(.experts, block: block) { () throws(CrosspointError) in
      let dCombined = try projection.widenBackward(dy)
      return try pass.clock.measure(.combineBackward, over: transport, block: block) { () throws(CrosspointError) in
        try transport.combineBackward(dCombined, meanwhile: work)
      }
    }
    let rows = transport.rows
    let (hidden, active) = try (hidden.matrix(rows.rows, experts.hidden), active.matrix(rows.rows, experts.hidden))
    try pass.clock.measure(.experts, block: block) { () throws(CrosspointError) in
      let activeGradient = try activeGradient.matrix(rows.rows, experts.hidden, mostRows: mostRows)
      let dRows = try transport.rowGradients()
      for (expert, range) in expertRows {
        expert.differentiateRows(
          hidden: hidden[rows: range], activeGradient: activeGradient[rows: range],
          dy: Matrix(dOutput)[rows: range], into: Matrix(dRows)[rows: range])
      }
    }
    var rest = expertRows
    let dx = try pass.clock.measure(.experts, block: block) { () throws(CrosspointError) in
      let dSent = try pass.clock.measure(.dispatchBackward, over: transport, block: block) {
        () throws(CrosspointError) in
        // Nobody waits for the gradients of the weights: they are made while those of the rows travel.
        try transport.dispatchBackward { () throws(CrosspointError) in
          guard let (expert, range) = rest.next() else { return false }
          try pass.clock.measure(.experts, block: block) { () throws(CrosspointError) in
            expert.differentiateWeights(
              rows[rows: range], hiddenGradient: hidden[rows: range], active: active[rows: range],
              dy: Matrix(dOutput)[rows: range])
          }
          return true
        }
      }
      return try projection.narrowBackward(dSent, x)
    }
    try pass.clock.measure(.router, block: block) { () throws(CrosspointError) in
      let gate = gate(pass)
      let dLogits = try dLogits.matrix(x.rows, router.experts)
      try router(of: pass).backward(
        decision, topkWeightGradients: transport.topkWeightGradients, auxiliaryScale: pass.weight * share,
        into: dLogits.floats)
      multiply(Matrix(x).transposed, dLogits, into: gate.gradient, accumulate: true)
      multiply(dLogits, gate.value.transposed, into: Matrix(dx), accumulate: true)
    }
    return dx
  }

  /// Lets thresholds move, once per optimiser step. Collective.
  func step() throws(CrosspointError) {
    try prune?.step(fabric, operation: "prune")
    try groupPrice?.step(fabric, operation: "groupPrice")
  }

  /// Adds what moved since the last call; bytes that are compared with are those of rows as wide as the model.
  func takeTraffic(into traffic: inout Traffic) {
    let before = traffic.routedBytes
    transport.takeTraffic(into: &traffic)
    traffic.routedBytes = before + narrowing * (traffic.routedBytes - before)
  }

  /// For a checkpoint.
  var state: [UInt64] { [prune, groupPrice].compactMap { $0?.state } }

  /// Continues from a ``state``.
  /// - Throws: `checkpointMismatch` if it cannot be this layer's.
  func restore(_ state: [UInt64]) throws(CrosspointError) {
    guard state.count == self.state.count else {
      throw CrosspointError(
        .checkpointMismatch, operation: "resume", argument: "stages",
        "a layer with \(state.count) thresholds where \(self.state.count) are expected")
    }
    var rest = state[...]
    if prune != nil { try prune?.restore(rest.removeFirst()) }
    if groupPrice != nil { try groupPrice?.restore(rest.removeFirst()) }
  }

  /// Gives back what forward kept.
  func forget() {
    projection.forget()
    transport.forget()
  }

  private func gate(_ pass: Pass) -> Parameter {
    guard let gate = gates[pass.granularity] else { preconditionFailure("no router for \(pass.granularity)") }
    return gate
  }

  /// The router with the trim of this pass: its threshold as it stands, and nothing at random in evaluation.
  private func router(of pass: Pass) throws(CrosspointError) -> TopKRouter {
    var router = router
    if let groupPrice { router = try router.priced(groupPrice.value, perGroupOf: stages.routerGroups) }
    if let prune { return try router.trimmed(by: stages.pruning(prune.value)) }
    if stages.secondExpert == .random, !pass.context.isTraining { return try router.trimmed(by: nil) }
    return router
  }

  private var expertRows: ExpertRows { ExpertRows(experts, transport.rowsPerExpert) }
}

/// The experts that got rows, with theirs among all.
private struct ExpertRows: Sequence, IteratorProtocol {
  private var rest: Zip2Sequence<[FeedForward], [Int]>.Iterator
  private var start = 0

  init(_ experts: [FeedForward], _ rows: [Int]) { rest = zip(experts, rows).makeIterator() }

  mutating func next() -> (expert: FeedForward, rows: Range<Int>)? {
    while let (expert, rows) = rest.next() {
      defer { start += rows }
      if rows > 0 { return (expert, start..<start + rows) }
    }
    return nil
  }
}

/// What a mixture of experts made of its rows.
struct MoEOutput: ~Copyable {
  let outputs: TokenBatch
  let loadBalance: Double

  consuming func takeOutputs() -> TokenBatch { outputs }
}

extension [FeedForward] {
  /// Hidden floats of each; 0 on a rank without experts.
  fileprivate var hidden: Int { first?.hidden ?? 0 }
}

extension Matrix {
  init(_ batch: borrowing TokenBatch) { self.init(batch.base, batch.rows, batch.hidden) }

  var floats: UnsafeMutableBufferPointer<Float> { UnsafeMutableBufferPointer(start: base, count: count) }
}
