import Crosspoint

/// README.md. Every rank of an MPI job, or one process alone.
func readme() throws {
  var generator = SplitMix64(seed: 3)
  let values = (0..<24 * 768).map { _ in generator.nextUnit() - 0.5 }
  let tokens = try TokenBatch(values, hidden: 768)
  let dy = try TokenBatch(rows: 24, hidden: 768)
  let gate = try LinearRouter(
    hidden: 768, router: TopKRouter(experts: 16, topK: 2, scoring: .topKThenSoftmax), seed: 1)
  let experts = DoublingExperts()

  // snippet: readme
  let fabric = try MPIFabric.world()  // or inside SimulatedCluster(ranks: 8).run { fabric in … }
  let exchange = try ExpertExchange(fabric: fabric, layout: ExpertLayout(experts: 16, hidden: 768))
  let decision = try gate.route(tokens)  // LinearRouter, or a gate of your own
  let handle = try exchange.dispatch(tokens, decision.routing)  // handle.rows grouped by local expert
  try experts.forward(handle.rows, into: handle.outputs())  // yours; read there, not copied
  let y = try exchange.combine(handle)  // weights are applied here
  let dOutput = try exchange.combineBackward(dy, handle)  // also ∂L/∂weights
  try experts.backward(dOutput, into: handle.rowGradients())
  let dTokens = try exchange.dispatchBackward(handle)
  // end

  try expect(zip(y.array, values).allSatisfy { abs($0 - 2 * $1) < 1e-5 }, "experts double, and weights sum to one")
  try expect(dTokens.array.allSatisfy { $0 == 0 }, "no gradient comes in")
  try fabric.finalize()
}

/// E(x) = 2 x.
struct DoublingExperts {
  func forward(_ rows: borrowing TokenBatch, into output: borrowing TokenBatch) {
    for (index, value) in rows.elements.enumerated() { output.elements[index] = 2 * value }
  }

  func backward(_ dOutput: borrowing TokenBatch, into dRows: borrowing TokenBatch) { forward(dOutput, into: dRows) }

  func forward(_ rows: borrowing TokenBatch) throws(CrosspointError) -> TokenBatch {
    let output = try TokenBatch(rows: rows.rows, hidden: rows.hidden)
    forward(rows, into: output)
    return output
  }

  func backward(_ dOutput: borrowing TokenBatch) throws(CrosspointError) -> TokenBatch { try forward(dOutput) }
}
