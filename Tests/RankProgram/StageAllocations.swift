import CAllocationCounter
import CrosspointRouting
import CrosspointStages
import CrosspointTestSupport
import CrosspointTokens

/// The four halves of a warm pipeline make no call to the allocator.
func stageAllocations(_ ranks: Ranks) throws {
  let hidden = 32
  let pipelines: [(String, [any TokenStage])] = [
    ("deletion", [try gate(hidden)]),
    ("pooling", [try WindowPooling(.sampled([2, 2], seed: 1))]),
    ("merging", [try TokenMerging(.init(threshold: .given(0.9), isCausal: true))]),
    (
      "all three",
      [
        try gate(hidden), try TokenMerging(.init(threshold: .given(0.9), isCausal: false)),
        try WindowPooling(.fixed(3)),
      ]
    ),
  ]
  let layout = try RowLayout(tokensPerSequence: [90, 110], isPadding: (0..<200).map { $0 > 190 })
  let x = try clusteredBatch(rows: 200, hidden: hidden, seed: 4)
  let pool = BufferPool()
  for (name, stages) in pipelines {
    let pipeline = try TokenPipeline(stages, causal: false)
    for round in 0..<9 {
      if round == 4 { xp_start_counting() }
      let rows = try pipeline.reduce(x, layout, StageContext(step: 1, isTraining: true))
      // The identity stands in for the experts; its outputs are the pipeline's to keep.
      let outputs = try TokenBatch(uninitializedRows: rows.tokens.rows, hidden: hidden, pool: pool)
      outputs.base.update(from: rows.tokens.base, count: outputs.rows * hidden)
      let y = try pipeline.expand(outputs)
      let dOutputs = try pipeline.expandBackward(y)
      _ = try pipeline.reduceBackward(dOutputs, tokens: x)
    }
    let calls = xp_stop_counting()
    try ranks.expect(calls, is: 0, "allocator calls in five warm steps, \(name)")
  }
}

private func gate(_ hidden: Int) throws -> DeletionGate {
  try DeletionGate(
    hidden: hidden,
    options: DeletionOptions(rule: .learned(.init(regulariser: .constant(0.1), hardProbability: 1)), seed: 2))
}
