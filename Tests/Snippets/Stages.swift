import Crosspoint

/// docs/stages.md
func stages() throws {
  try SimulatedCluster(ranks: 2).run(trainThroughStages)
}

private func trainThroughStages(_ fabric: any Fabric) throws {
  var generator = SplitMix64(seed: UInt64(fabric.rank))
  let x = try TokenBatch((0..<32 * 768).map { _ in generator.nextUnit() - 0.5 }, hidden: 768)
  let dy = try TokenBatch([Float](repeating: 1, count: 32 * 768), hidden: 768)
  let layout = RowLayout(sequences: 2, length: 16)
  let step = 0
  let experts = DoublingExperts()
  let exchange = try ExpertExchange(fabric: fabric, layout: ExpertLayout(experts: 4, hidden: 768))
  var router = try LinearRouter(
    hidden: 768, router: TopKRouter(experts: 4, topK: 2, scoring: .topKThenSoftmax), seed: 1)

  // snippet: stages
  // Replaces numbers by their sums over ranks.
  let sum: CountReduction = { counts throws(CrosspointError) in
    try counts.withUnsafeMutableBufferPointer { values throws(CrosspointError) in
      try fabric.allreduce(values, operation: "stages")
    }
  }
  let gate = try DeletionGate(
    hidden: 768,
    options: DeletionOptions(rule: .learned(.init(regulariser: .controlled(target: 0.5))), seed: 1))
  let merging = try TokenMerging(.init(threshold: .learned(rate: 0.2), isCausal: true))
  let pipeline = try TokenPipeline([gate, merging], causal: true)

  // Forward.
  let context = StageContext(step: step, isTraining: true, batch: fabric.rank)
  let rows = try pipeline.reduce(x, layout, context, reduceCounts: sum)
  let traits = RowTraits(tokensPerRow: rows.layout.tokensPerRow)
  let decision = try router.route(rows.tokens, traits: traits, reduceCounts: sum)
  let handle = try exchange.dispatch(rows.tokens, decision.routing)
  var y = try pipeline.expand(exchange.combine(experts.forward(handle.rows), handle))
  try y.add(x)

  // Backward.
  let dOutputs = try exchange.combineBackward(pipeline.expandBackward(dy), handle)
  var dRows = try exchange.dispatchBackward(experts.backward(dOutputs), handle)
  try router.backward(
    decision, topkWeightGradients: handle.topkWeightGradients, tokens: rows.tokens, into: &dRows)
  var dx = try pipeline.reduceBackward(dRows, tokens: x)
  try dx.add(dy)

  // Once per optimiser step.
  try pipeline.step(reduceCounts: sum)
  // end

  try expect(y.rows == 32 && dx.rows == 32, "every token is back")
  try expect(pipeline.statistics.count == 2, "two stages counted")
}
