import CrosspointCore
import CrosspointExchange
import CrosspointFabric
import CrosspointPolicy
import CrosspointTestSupport
import Testing

@Suite struct PolicyOverlapTests {
  @Test func withAPolicyOneTransferIsUnderWay() throws {
    try SimulatedCluster(ranks: 2).run { fabric in
      let exchange = try ExpertExchange(
        fabric: fabric, layout: ExpertLayout(experts: 4, hidden: 8), options: .init(policy: .budget(relativeError: 0.1))
      )
      let tokens = try randomBatch(rows: 12, hidden: 8, seed: 1)
      let routing = try randomRouting(tokens: 12, topK: 2, experts: 4, notSent: 0, seed: 1)
      let pending = try exchange.beginDispatch(tokens, routing)
      let error = #expect(throws: CrosspointError.self) { _ = try exchange.dispatch(tokens, routing) }
      #expect(error?.code == .handleMisuse && error?.message.contains("policy") == true)
      let handle = try pending.finish()
      #expect(handle.rows.rows > 0)
      _ = try exchange.combine(handle.rows, handle)
    }
  }
}
