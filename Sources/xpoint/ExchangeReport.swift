import Crosspoint
import CrosspointBaseline

/// What all ranks measured, put together: the slowest rank decides each time, the busiest each size.
struct ExchangeReport: Sendable {
  /// One operation of one implementation, over all ranks and iterations.
  private struct Line {
    var seconds: Samples
    var slowestRank: Int
    /// Per operation, of the busiest rank: bytes on the wire, and bytes that stayed.
    var wireBytes: Int
    var localBytes: Int
  }

  private typealias Phase = (name: String, seconds: Double)

  private let settings: ExchangeTrial.Settings
  /// Ours, and what it is compared with.
  private let implementations: [String]
  /// The transfers, and all of them together.
  private let ops: [String]
  private let ranks: Int
  /// Ratio of the times of each iteration, crosspoint to the baseline, by op.
  private let ratios: [Samples]
  private let lines: [[Line]]
  /// By op, of the busiest rank: fp32 bytes of all its rows, and of those that cross to another rank.
  private let payload: [(all: Int, away: Int)]
  /// Seconds of each phase, of the rank that took longest, per iteration.
  private let crosspointPhases: [Phase]
  private let baselinePhases: [Phase]
  /// Rows that all ranks sent, per exchange, and the routed pairs that they stood for; own experts included.
  private let rowsSent: Int
  private let rowsRouted: Int
  /// Bytes of all ranks, per exchange, that stayed within their node.
  private let nodeBytes: Int
  /// What a policy chose for each transfer.
  private let choices: [String]
  let wrongValues: Int

  /// Collective.
  init(
    settings: ExchangeTrial.Settings, fabric: any Fabric, seconds: [[[Double]]], statistics: LayerStatistics,
    baseline: BaselineTraffic, baselineSeconds: BaselineSeconds, wrong: Int
  ) throws {
    self.settings = settings
    let implementations = ["crosspoint", settings.baseline.rawValue]
    self.implementations = implementations
    ranks = fabric.rankCount
    let rowBytes = 4 * settings.hidden
    ops = settings.transfers.map { "\($0)" } + ["exchange"]
    // [transfer][implementation][wire, local], then [transfer][all, away]: sums over the iterations.
    let traffic = settings.transfers.enumerated().map { index, kind in
      let moved = baseline.moved[index]
      return [[statistics[kind].wireBytes, statistics[kind].localBytes], [moved.sent, moved.kept]]
    }
    let routedBytes = baseline.routed.map { [$0.all * rowBytes, $0.away * rowBytes] }
    func busiest(_ values: [[Int]]) throws -> [Int] {
      let all = try fabric.gather(values.joined().map(Double.init), operation: "bench")
      return values.joined().enumerated().map { index, _ in Int(all.map { $0[index] }.max()!) / settings.iterations }
    }
    let wires = try busiest(traffic.flatMap { $0 })
    let payloads = try busiest(routedBytes)
    func total(_ values: [Int], _ at: (Int) -> Int) -> [Int] {
      let each = settings.transfers.indices.map { values[at($0)] }
      return each + [each.reduce(0, +)]
    }
    let (all, away) = (total(payloads) { 2 * $0 }, total(payloads) { 2 * $0 + 1 })
    payload = zip(all, away).map { ($0, $1) }

    let everyones = try fabric.gather(seconds.flatMap { $0.flatMap { $0 } }, operation: "bench")
    var ratios: [Samples] = []
    lines = ops.indices.map { op in
      let times = implementations.indices.map { implementation in
        let start = (2 * op + implementation) * settings.iterations
        return SlowestTimes(everyones.map { $0[start..<start + settings.iterations] })
      }
      ratios.append(Samples(zip(times[0].seconds, times[1].seconds).map { $0 / $1 }))
      return implementations.indices.map { implementation in
        Line(
          seconds: Samples(times[implementation].seconds), slowestRank: times[implementation].rank,
          wireBytes: total(wires) { 4 * $0 + 2 * implementation }[op],
          localBytes: total(wires) { 4 * $0 + 2 * implementation + 1 }[op])
      }
    }
    self.ratios = ratios
    choices = TransferKind.allCases.compactMap { kind in
      statistics.choices[kind.rawValue].map { "# policy, \(kind): \($0)" }
    }

    func phases(_ mine: KeyValuePairs<String, Double>) throws(CrosspointError) -> [Phase] {
      let all = try fabric.gather(mine.map(\.value), operation: "bench")
      return mine.enumerated().map { index, phase in
        (phase.key, all.map { $0[index] }.max()! / Double(settings.iterations))
      }
    }
    let rows = try fabric.gather(
      [
        Double(statistics.rowsSent), Double(statistics.rowsRouted), Double(statistics.nodeBytes),
      ], operation: "bench")
    rowsSent = Int(rows.map { $0[0] }.reduce(0, +)) / settings.iterations
    rowsRouted = Int(rows.map { $0[1] }.reduce(0, +)) / settings.iterations
    nodeBytes = Int(rows.map { $0[2] }.reduce(0, +)) / settings.iterations
    let inside = statistics.seconds
    crosspointPhases = try phases([
      "hash and average": inside.hash, "sums": inside.cluster, "policy": inside.policy, "encode": inside.encode,
      "skew": inside.skew, "move": inside.wait, "decode": inside.decode,
    ])
    baselinePhases = try phases([
      "pack": baselineSeconds.pack, "move": baselineSeconds.move, "unpack": baselineSeconds.unpack,
      "sum": baselineSeconds.sum,
    ])
    wrongValues = Int(try fabric.gather([Double(wrong)], operation: "bench").map { $0[0] }.reduce(0, +))
  }

  /// The records of the JSON file.
  var records: [BenchRecord] {
    ops.indices.flatMap { op in
      implementations.indices.map { implementation in
        let line = lines[op][implementation]
        return BenchRecord(
          op: ops[op], implementation: implementations[implementation], ranks: ranks,
          tokensPerRank: settings.tokens, hidden: settings.hidden, topK: settings.topK,
          pattern: settings.routingName, bytes: line.wireBytes, seconds: line.seconds,
          slowestRank: line.slowestRank,
          ratio: implementation == 0 ? ratios[op] : nil)
      }
    }
  }

  /// What stdout shows.
  func text(transport: String) -> String {
    var table = Table(columns: [
      "op", "implementation", "size(B)", "local(B)", "tokens", "hidden", "topk", "min(us)", "median(us)", "p99(us)",
      "algbw(GB/s)", "busbw(GB/s)", "slowest", "#wrong", "ratio",
    ])
    for op in ops.indices {
      for implementation in implementations.indices {
        let line = lines[op][implementation]
        let median = line.seconds.median
        table.append([
          ops[op], implementations[implementation], "\(line.wireBytes)", "\(line.localBytes)",
          "\(settings.tokens)", "\(settings.hidden)", "\(settings.topK)", line.seconds.minimum.microseconds,
          median.microseconds, line.seconds.percentile(99).microseconds, (Double(payload[op].all) / median).gigabytes,
          (Double(payload[op].away) / median).gigabytes, "\(line.slowestRank)",
          implementation == 1 || op < ops.count - 1 ? "-" : settings.options.isLossless ? "\(wrongValues)" : "lossy",
          implementation == 1 ? "1.000" : ratios[op].median.fixed(3),
        ])
      }
    }
    let head = """
      # \(transport); \(settings.experts) experts, pattern \(settings.routingName), \
      \(settings.warmup) warm-up and \(settings.iterations) timed runs each, taking turns; kernels: \(kernelName)
      # \(settings.options)
      # \(rowsSent) rows sent per exchange for \(rowsRouted) routed pairs, over all ranks; \(nodeBytes) bytes in shared memory
      """
    let inside = zip(implementations, [crosspointPhases, baselinePhases]).map { name, phases in
      "# inside \(name), per exchange, largest over ranks (us): "
        + phases.map { "\($0.name) \($0.seconds.microseconds)" }.joined(separator: ", ")
    }
    let footer = ops.indices.map { op in
      "# \(ops[op]): crosspoint / \(settings.baseline.rawValue), paired by iteration: min \(ratios[op].minimum.fixed(3)), "
        + "median \(ratios[op].median.fixed(3)), max \(ratios[op].maximum.fixed(3))"
    }
    return ([head, table.text] + choices + inside + footer).joined(separator: "\n")
  }
}
