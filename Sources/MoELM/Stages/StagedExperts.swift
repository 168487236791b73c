import Crosspoint

/// A mixture of experts behind the token stages of its layer: `y += expand(MoE(reduce(x)))`.
final class StagedExperts {
  let layer: MoELayer
  let stages: LayerStages
  /// What was routed, kept for the backward pass; `nil` without stages, where the tokens themselves are.
  private var rows: TokenRows?
  /// Pairs of a token and an expert since the last ``takeMovement(into:)``, before any stage.
  private var offered = 0
  private let topK: Int
  private let block: Int
  /// What trims left of the experts after the first; `nil` without trims.
  private var furtherExperts: StageCount?
  /// How alike the granularities choose; empty for a single one.
  private var overlaps: [Overlap]
  /// What the first granularity chose for the batch under way.
  private var firstChoice: (routing: Routing, rowOfToken: [Int32])?

  static func sharedParameters(_ name: String, _ shape: ModelShape, _ options: ExchangeOptions)
    throws(CrosspointError) -> [ParameterSpecification]
  {
    try MoELayer.sharedParameters(name, shape, options) + LayerStages.parameters(name, shape)
  }

  /// Collective: makes the layer's transport.
  init(
    _ name: String, _ shape: ModelShape, shared: ParameterSet, experts: ParameterSet, fabric: any Fabric,
    options: ExchangeOptions, over transport: ExpertTransportKind, layer place: Int
  ) throws(CrosspointError) {
    topK = shape.topK
    block = place
    furtherExperts = shape.stages.trims ? StageCount(name: StageCount.furtherExperts) : nil
    overlaps =
      shape.stages.comparesChoices
      ? shape.stages.granularities.dropFirst().map { Overlap(block: place, granularity: $0) } : []
    layer = try MoELayer(
      name, shape, shared: shared, experts: experts, fabric: fabric, options: options, over: transport, layer: place)
    stages = try LayerStages(name, shape, in: shared, fabric: fabric)
  }

  /// Adds the experts' weighted outputs to `y`, after the work that it does meanwhile. Collective.
  func forward(_ x: borrowing TokenBatch, addingTo y: Matrix, _ pass: Pass, meanwhile work: LocalWork)
    throws(CrosspointError) -> Losses
  {
    offered += x.rows * topK
    guard !stages.isEmpty else {
      let output = try layer.forward(x, pass, meanwhile: work)
      countChoices()
      add(output.outputs, to: y)
      return Losses(loadBalance: output.loadBalance)
    }
    let rows = try pass.clock.measure(.stages, block: block) { () throws(CrosspointError) in
      try stages.reduce(x, pass)
    }
    let output = try layer.forward(rows.tokens, tokensPerRow: rows.layout.tokensPerRow, pass, meanwhile: work)
    countChoices()
    compareChoices(pass)
    self.rows = consume rows
    let loadBalance = output.loadBalance
    var outputs: TokenBatch? = output.takeOutputs()
    let expanded = try pass.clock.measure(.stages, block: block) { () throws(CrosspointError) in
      try stages.expand(outputs.take()!)
    }
    add(expanded, to: y)
    return Losses(loadBalance: loadBalance, stages: stages.loss * Double(pass.share))
  }

  /// Fills `dx` with `∂L/∂x`, or adds it to what the work left there. Collective.
  func backward(
    _ x: borrowing TokenBatch, dy: borrowing TokenBatch, _ pass: Pass, into dx: Matrix, accumulate: Bool,
    meanwhile work: LocalWork
  ) throws(CrosspointError) {
    guard let rows = rows.take() else {
      put(try layer.backward(x, dy: dy, pass, meanwhile: work), into: dx, accumulate: accumulate)
      return
    }
    let dOutputs = try pass.clock.measure(.stages, block: block) { () throws(CrosspointError) in
      try stages.expandBackward(dy)
    }
    let dRows = try layer.backward(rows.tokens, dy: dOutputs, pass, meanwhile: work)
    let dTokens = try pass.clock.measure(.stages, block: block) { () throws(CrosspointError) in
      try stages.reduceBackward(dRows, tokens: x, pass)
    }
    put(dTokens, into: dx, accumulate: accumulate)
  }

  /// Adds what this rank moved since the last call.
  func takeMovement(into moved: inout Movement) {
    layer.takeTraffic(into: &moved.traffic)
    moved.traffic.rowsOffered += Double(offered)
    offered = 0
    moved.stageSeconds += stages.takeSeconds()
    let count = stages.takeCounts(into: &moved)
    if let furtherExperts { moved.add(furtherExperts, at: count) }
    furtherExperts?.reset()
    moved.overlaps += overlaps
    for place in overlaps.indices { overlaps[place].reset() }
  }

  /// Gives back what forward kept.
  func forget() {
    rows = nil
    layer.forget()
  }

  private func countChoices() {
    let routing = layer.decision.routing
    let rows = Double(routing.tokens)
    furtherExperts?.tokensIn += rows
    furtherExperts?.rowsIn += rows * Double(topK - 1)
    furtherExperts?.rowsOut += Double(routing.tokensPerExpert.reduce(0, +)) - rows
  }

  /// Holds what this granularity chooses against what the first one chose for the same batch.
  private func compareChoices(_ pass: Pass) {
    guard !overlaps.isEmpty, let pooling = stages.pooling else { return }
    let routing = layer.decision.routing
    if pass.isFirstOfBatch { firstChoice = (routing, pooling.rowOfToken) }
    guard let place = overlaps.firstIndex(where: { $0.granularity == pass.granularity }), let firstChoice,
      !pass.isFirstOfBatch
    else { return }
    var overlap = SelectionOverlap()
    overlap.add(firstChoice.routing, firstChoice.rowOfToken, routing, pooling.rowOfToken)
    overlaps[place].add(overlap)
  }

  private func add(_ batch: borrowing TokenBatch, to y: Matrix) {
    map(y.base, batch.base, into: y.base, count: y.count) { $0 + $1 }
  }

  private func put(_ batch: borrowing TokenBatch, into y: Matrix, accumulate: Bool) {
    if accumulate { add(batch, to: y) } else { y.base.update(from: batch.base, count: y.count) }
  }
}
