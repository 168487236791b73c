#if Metrics
  public import CrosspointExchange
  public import Metrics

  /// Counters of swift-metrics for the statistics of one exchange; this rank's share.
  ///
  ///     let metrics = ExchangeMetrics(layer: 3)
  ///     …
  ///     metrics.record(&exchange.statistics)  // once a step, or when you like
  ///
  /// | counter | dimension beside `layer` |
  /// |---|---|
  /// | `crosspoint_rows_routed`, `crosspoint_rows_sent` | |
  /// | `crosspoint_wire_bytes`, `crosspoint_node_bytes`, `crosspoint_uncompressed_bytes`, `crosspoint_local_bytes` | `transfer` |
  /// | `crosspoint_nanoseconds` | `phase` |
  public struct ExchangeMetrics {
    private let counters: [(counter: Counter, value: (LayerStatistics) -> Int)]

    /// - Parameters:
    ///   - layer: what tells this exchange from others.
    ///   - factory: `nil`: the one of the process, see `MetricsSystem.bootstrap`.
    public init(layer: Int, factory: (any MetricsFactory)? = nil) {
      let factory = factory ?? MetricsSystem.factory
      func counter(
        _ name: String, _ dimensions: [(String, String)], _ value: @escaping (LayerStatistics) -> Int
      ) -> (Counter, (LayerStatistics) -> Int) {
        let all = [("layer", "\(layer)")] + dimensions
        return (Counter(label: "crosspoint_\(name)", dimensions: all, factory: factory), value)
      }
      let bytes: [(String, KeyPath<LayerStatistics.Traffic, Int>)] = [
        ("wire_bytes", \.wireBytes), ("node_bytes", \.nodeBytes), ("uncompressed_bytes", \.uncompressedBytes),
        ("local_bytes", \.localBytes),
      ]
      let phases: [(String, KeyPath<LayerStatistics.Seconds, Double>)] = [
        ("hash", \.hash), ("cluster", \.cluster), ("encode", \.encode), ("skew", \.skew), ("wait", \.wait),
        ("decode", \.decode), ("meanwhile", \.meanwhile), ("policy", \.policy),
      ]
      var counters = [counter("rows_routed", [], \.rowsRouted), counter("rows_sent", [], \.rowsSent)]
      for kind in TransferKind.allCases {
        for (name, value) in bytes {
          counters.append(counter(name, [("transfer", "\(kind)")]) { $0[kind][keyPath: value] })
        }
      }
      for (phase, value) in phases {
        counters.append(counter("nanoseconds", [("phase", phase)]) { Int($0.seconds[keyPath: value] * 1e9) })
      }
      self.counters = counters
    }

    /// Adds statistics to the counters, and resets them: nothing is counted twice.
    public func record(_ statistics: inout LayerStatistics) {
      for (counter, value) in counters where value(statistics) > 0 { counter.increment(by: value(statistics)) }
      statistics.reset()
    }
  }
#endif
