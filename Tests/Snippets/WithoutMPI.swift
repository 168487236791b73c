// snippet: without-mpi
import CrosspointExchange
import CrosspointFabric
import CrosspointRouting
import CrosspointTokens

/// How many rows reach each of two ranks, of four tokens that go to every second of four experts.
func rowsAtEachRank() throws -> [Int] {
  try SimulatedCluster(ranks: 2).run { fabric in
    let exchange = try ExpertExchange(fabric: fabric, layout: ExpertLayout(experts: 4, hidden: 8))
    let tokens = try TokenBatch(rows: 4, hidden: 8)
    let routing = try Routing(
      topkIndices: [0, 2, 0, 2], topkWeights: [1, 1, 1, 1], topK: 1, experts: 4)
    let handle = try exchange.dispatch(tokens, routing)
    return handle.rows.rows
  }
}
// end
