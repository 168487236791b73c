import Crosspoint

/// docs/routing.md
func routing() throws {
  try SimulatedCluster(ranks: 2).run { fabric in
    try route(fabric)
    try trim()
    try countOnAllRanks(fabric)
    try balance(fabric)
    try overlap(fabric)
  }
}

private func someTokens(_ fabric: any Fabric) throws -> TokenBatch {
  var generator = SplitMix64(seed: UInt64(fabric.rank))
  return try TokenBatch((0..<40 * 768).map { _ in generator.nextUnit() - 0.5 }, hidden: 768)
}

private func route(_ fabric: any Fabric) throws {
  let tokens = try someTokens(fabric)
  let experts = DoublingExperts()
  let exchange = try ExpertExchange(fabric: fabric, layout: ExpertLayout(experts: 16, hidden: 768))

  // snippet: route
  let router = try TopKRouter(experts: 16, topK: 2, scoring: .topKThenSoftmax, loadBalance: 0.01)
  var gate = try LinearRouter(hidden: 768, router: router, seed: 1)

  let decision = try gate.route(tokens)  // decision.routing, decision.losses
  let handle = try exchange.dispatch(tokens, decision.routing)
  // end
  let y = try exchange.combine(experts.forward(handle.rows), handle)
  let dOutput = try exchange.combineBackward(y, handle)
  // snippet: route
  // … experts, combine, loss, combineBackward …
  var dTokens = try exchange.dispatchBackward(experts.backward(dOutput), handle)
  try gate.backward(
    decision, topkWeightGradients: handle.topkWeightGradients, tokens: tokens, into: &dTokens)
  // end

  try expect(gate.weightGradients.contains { $0 != 0 }, "the gate learns")
}

private func trim() throws {
  let plain = try TopKRouter(experts: 16, topK: 2, scoring: .topKThenSoftmax)
  // snippet: trim
  let router = try plain.trimmed(by: .pruning(threshold: 0.5, protecting: 0.02))
  // end
  try expect(router.trim != nil, "it trims")
}

private func countOnAllRanks(_ fabric: any Fabric) throws {
  let tokens = try someTokens(fabric)
  let gate = try LinearRouter(
    hidden: 768, router: TopKRouter(experts: 16, topK: 2, scoring: .topKThenSoftmax, loadBalance: 0.01), seed: 1)

  // snippet: reduce-counts
  let decision = try gate.route(tokens) { counts throws(CrosspointError) in
    try counts.withUnsafeMutableBufferPointer { values throws(CrosspointError) in
      try fabric.allreduce(values, operation: "route")
    }
  }
  // end

  try expect(decision.losses.loadBalance > 0, "a loss of all ranks' counts")
}

private func balance(_ fabric: any Fabric) throws {
  let tokens = try someTokens(fabric)
  var gate = try LinearRouter(
    hidden: 768, router: TopKRouter(experts: 16, topK: 2, scoring: .topKThenSoftmax), seed: 1)

  // snippet: bias
  gate.selectionBias = try SelectionBias(experts: 16, rate: 0.001)
  let counts = try gate.route(tokens).routing.tokensPerExpert
  // … once per optimiser step, in training only:
  try gate.selectionBias?.update(tokensPerExpert: counts) { counts throws(CrosspointError) in
    try counts.withUnsafeMutableBufferPointer { values throws(CrosspointError) in
      try fabric.allreduce(values, operation: "bias")
    }
  }
  // end

  try expect(gate.selectionBias!.values.contains { $0 != 0 }, "the bias moves")
}

private func overlap(_ fabric: any Fabric) throws {
  let tokens = try someTokens(fabric)
  let experts = DoublingExperts()
  let exchange = try ExpertExchange(fabric: fabric, layout: ExpertLayout(experts: 16, hidden: 768))
  let gate = try LinearRouter(
    hidden: 768, router: TopKRouter(experts: 16, topK: 2, scoring: .topKThenSoftmax), seed: 1)
  let decision = try gate.route(tokens)
  let shared = SharedSum()

  // snippet: shared
  let outputs = try TokenBatch(rows: tokens.rows, hidden: tokens.hidden)
  var rows = stride(from: 0, to: tokens.rows, by: 128).makeIterator()
  let handle = try exchange.dispatch(tokens, decision.routing) {  // while tokens travel
    guard let start = rows.next() else { return false }  // false: nothing is left
    shared.forward(tokens, rows: start..<min(start + 128, tokens.rows), into: outputs)
    return true
  }
  var y = try exchange.combine(experts.forward(handle.rows), handle)
  try y.add(outputs)
  // end

  try expect(
    zip(y.array, tokens.array).allSatisfy { abs($0 - 3 * $1) < 1e-5 }, "2 x of experts and x of the shared one")
}

/// A shared expert, E(x) = x.
private struct SharedSum {
  func forward(_ tokens: borrowing TokenBatch, rows: Range<Int>, into outputs: borrowing TokenBatch) {
    for row in rows { _ = outputs.row(row).update(fromContentsOf: tokens.row(row)) }
  }
}
