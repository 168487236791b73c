#if Metrics
  import CrosspointExchange
  import CrosspointFabric
  import CrosspointMetrics
  import CrosspointRouting
  import CrosspointTokens
  import MetricsTestKit

  /// Whether counters have what the statistics had.
  func checkMetrics() throws {
    try SimulatedCluster(ranks: 2).run { fabric in
      let kit = TestMetrics()
      let metrics = ExchangeMetrics(layer: 7, factory: kit)
      let exchange = try ExpertExchange(fabric: fabric, layout: ExpertLayout(experts: 4, hidden: 8))
      var (wire, encode) = (0, 0)
      for _ in 0..<3 {
        let tokens = try TokenBatch([Float](repeating: 1, count: 24), hidden: 8)
        let routing = try Routing(topkIndices: [0, 2, 3], topkWeights: [1, 1, 1], topK: 1, experts: 4)
        let handle = try exchange.dispatch(tokens, routing)
        _ = try exchange.combine(handle.rows, handle)
        wire += exchange.statistics[.combine].wireBytes
        encode += Int(exchange.statistics.seconds.encode * 1e9)
        metrics.record(&exchange.statistics)
      }
      func total(_ name: String, _ dimensions: [(String, String)] = []) throws -> Int {
        Int(try kit.expectCounter("crosspoint_\(name)", [("layer", "7")] + dimensions).totalValue)
      }
      let found = [
        try total("rows_routed"), try total("wire_bytes", [("transfer", "combine")]),
        try total("nanoseconds", [("phase", "encode")]), try total("wire_bytes", [("transfer", "combineBackward")]),
      ]
      precondition(found == [9, wire, encode, 0] && wire > 0 && encode > 0, "\(found), of \(wire) and \(encode)")
    }
  }
#endif
