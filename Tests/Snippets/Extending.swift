import Crosspoint

/// docs/extending.md
func extending() throws {
  try extendStages()
  try extendRouters()
  try extendFabrics()
}

private func extendStages() throws {
  let pipeline = try TokenPipeline([QuietRows(floor: 1)], causal: true)
  let tokens = try TokenBatch([0.5, -0.25, 2, 0], hidden: 2)
  let rows = try pipeline.reduce(
    tokens, RowLayout(sequences: 1, length: 2), StageContext(step: 0, isTraining: false))
  try expect(rows.tokens.array == [2, 0], "the quiet row stays at home")
}

private func extendRouters() throws {
  try SimulatedCluster(ranks: 2).run { fabric in
    let tokens = try TokenBatch([Float](repeating: 1, count: 6 * 4), hidden: 4)
    let exchange = try ExpertExchange(fabric: fabric, layout: ExpertLayout(experts: 4, hidden: 4))
    let experts = DoublingExperts()

    // snippet: use-router
    let router = HashRouter(experts: 4, topK: 2)
    let handle = try exchange.dispatch(tokens, router.route(ids: [17, 4, 17, 9, 2, 30]))
    let y = try exchange.combine(experts.forward(handle.rows), handle)
    // end

    try expect(y.array.allSatisfy { $0 == 2 }, "weights sum to one")
    let routing = try router.route(ids: [17, 17])
    try expect(Array(routing.topkIndices[..<2]) == Array(routing.topkIndices[2...]), "equal ids, equal experts")
    try expect(Set(routing.topkIndices).count == 2, "two different experts")
  }
}

private func extendFabrics() throws {
  let bytes = try SimulatedCluster(ranks: 2).run { inner in
    // snippet: use-fabric
    let fabric = CountingFabric(inner)
    let exchange = try ExpertExchange(fabric: fabric, layout: ExpertLayout(experts: 2, hidden: 256))
    // end
    let routing = try Routing(topkIndices: [0, 1], topkWeights: [1, 1], topK: 1, experts: 2)
    let before = fabric.sentBytes
    let handle = try exchange.dispatch(TokenBatch(rows: 2, hidden: 256), routing)
    try expect(handle.rows.rows == 2, "a row from each rank")
    return fabric.sentBytes - before
  }
  try expect(bytes.allSatisfy { $0 > 1024 && $0 < 2048 }, "one row of 1024 bytes, its header and two votes: \(bytes)")

  let alone = try ExpertExchange(fabric: LoneFabric(), layout: ExpertLayout(experts: 2, hidden: 2))
  let routing = try Routing(topkIndices: [1, 0], topkWeights: [1, 1], topK: 1, experts: 2)
  let tokens = try TokenBatch([1, 2, 3, 4], hidden: 2)
  let handle = try alone.dispatch(tokens, routing)
  let output = try TokenBatch(handle.rows.array, hidden: 2)
  try expect(alone.combine(output, handle).array == [1, 2, 3, 4], "all rows stay on the one rank")
}
