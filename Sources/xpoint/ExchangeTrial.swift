import Crosspoint
import CrosspointBaseline
import CrosspointOptions

/// One benchmark run on one rank: the two implementations take turns on the same data.
struct ExchangeTrial {
  struct Settings: Sendable {
    var tokens: Int
    var hidden: Int
    /// Rows of `hidden` floats that tokens are taken from; `nil`: random numbers.
    var input: [Float]?
    var topK: Int
    var experts: Int
    var pattern: RoutingPattern
    /// Routings to repeat instead of a pattern's.
    var recorded: RecordedRoutings?
    var iterations: Int
    var warmup: Int
    /// Whether gradients travel too.
    var backward: Bool
    var baseline: Baseline
    var options: ExchangeOptions

    /// What is timed one after the other.
    var transfers: [TransferKind] { backward ? TransferKind.allCases : [.dispatch, .combine] }

    /// The pattern's name.
    var routingName: String { recorded == nil ? pattern.rawValue : "recorded" }

    /// Every rank must do the same trial. Collective.
    func agree(on fabric: any Fabric) throws(CrosspointError) {
      try fabric.together(operation: "options") { () throws(CrosspointError) in
        try recorded?.check(ranks: fabric.rankCount)
      }
      try fabric.requireEqual(
        [
          ("tokens", "\(tokens)"), ("hidden", "\(hidden)"), ("input", input.map { "\($0.count) numbers" } ?? "random"),
          ("top-k", "\(topK)"), ("experts", "\(experts)"), ("pattern", routingName),
          ("iterations", "\(iterations)"), ("warmup", "\(warmup)"), ("backward", "\(backward)"),
          ("baseline", baseline.rawValue),
        ] + options.pairs, operation: "options")
    }
  }

  let settings: Settings
  private let fabric: any Fabric
  private let crosspoint: ExpertExchange
  private let baseline: any BaselineExchange
  /// Routings that differ from step to step, prepared in advance.
  private let routings: [Routing]

  init(_ settings: Settings, fabric: any Fabric, transport: any PlainTransport) throws {
    self.settings = settings
    self.fabric = fabric
    let layout = try ExpertLayout(experts: settings.experts, hidden: settings.hidden)
    crosspoint = try ExpertExchange(fabric: fabric, layout: layout, options: settings.options)
    let (rank, rankCount) = (fabric.rank, fabric.rankCount)
    baseline =
      switch settings.baseline {
      case .plain: PlainExchange(transport: transport, layout: layout, rank: rank, rankCount: rankCount)
      case .allgather: AllgatherExchange(transport: transport, layout: layout, rank: rank, rankCount: rankCount)
      }
    let place = RoutingPattern.Place(of: fabric, layout)
    if let recorded = settings.recorded {
      routings = try recorded.spread(
        most: max(settings.warmup, settings.iterations + 1), rank: fabric.rank, experts: settings.experts)
      return
    }
    routings = try (0..<8).map { step in
      try settings.pattern.routing(
        tokens: settings.tokens, topK: settings.topK, experts: settings.experts, at: place, step: step,
        seed: settings.options.seed)
    }
  }

  /// Collective. The report is complete on every rank.
  func run() throws -> ExchangeReport {
    let batches = try Dictionary(
      uniqueKeysWithValues: Set(routings.map(\.tokens)).map { ($0, try Tokens($0, settings, fabric)) })
    var wrong = 0
    for step in 0..<settings.warmup { wrong += try check(step, batches) }
    crosspoint.statistics.reset()
    baseline.seconds = .init()
    // [transfer, the last: all together][implementation: crosspoint, baseline][iteration]
    var seconds = [[[Double]]](repeating: [[], []], count: settings.transfers.count + 1)
    var traffic = BaselineTraffic(settings.transfers)
    for iteration in 0..<settings.iterations {
      let routing = routings[iteration % routings.count]
      let tokens = batches[routing.tokens]!
      let times = try inTurns(iteration, [timeCrosspoint, timeBaseline]) { time in try time(tokens, routing) }
      for (implementation, times) in times.enumerated() {
        for (op, time) in (times + [times.reduce(0, +)]).enumerated() { seconds[op][implementation].append(time) }
      }
      traffic.add(baseline, rank: fabric.rank)
    }
    let (statistics, baselineSeconds) = (crosspoint.statistics, baseline.seconds)
    wrong += try check(settings.iterations, batches)
    return try ExchangeReport(
      settings: settings, fabric: fabric, seconds: seconds, statistics: statistics, baseline: traffic,
      baselineSeconds: baselineSeconds, wrong: wrong)
  }

  /// The tokens of a rank; a class, so that a dictionary can hold it.
  private final class Tokens {
    let batch: TokenBatch

    init(_ rows: Int, _ settings: Settings, _ fabric: any Fabric) throws {
      guard let input = settings.input else {
        batch = try TokenBatch(
          randomRows: rows, hidden: settings.hidden, seed: settings.options.seed, rank: fabric.rank)
        return
      }
      batch = try TokenBatch(rows: rows, hidden: settings.hidden)
      // Ranks begin at even distances, and at the first row again after the last.
      let start = input.count / settings.hidden * fabric.rank / fabric.rankCount * settings.hidden
      for index in batch.elements.indices { batch.elements[index] = input[(start + index) % input.count] }
    }
  }

  /// Seconds of each transfer.
  private func timeCrosspoint(_ tokens: Tokens, _ routing: Routing) throws -> [Double] {
    try fabric.barrier(operation: "bench")
    var (watch, times) = (Stopwatch(), [Double]())
    let handle = try crosspoint.dispatch(tokens.batch, routing)
    times.append(watch.lap())
    let home = try crosspoint.combine(handle.rows, handle)
    if !settings.backward { try crosspoint.settle() }
    times.append(watch.lap())
    guard settings.backward else { return times }
    // What came home is its own gradient, and an expert's outputs are its inputs.
    let gradients = try crosspoint.combineBackward(home, handle)
    times.append(watch.lap())
    _ = try crosspoint.dispatchBackward(gradients, handle)
    try crosspoint.settle()
    return times + [watch.lap()]
  }

  private func timeBaseline(_ tokens: Tokens, _ routing: Routing) throws -> [Double] {
    try fabric.barrier(operation: "bench")
    var (watch, times) = (Stopwatch(), [Double]())
    let rows = try baseline.dispatch(tokens.batch, routing)
    times.append(watch.lap())
    let home = try baseline.combine(rows)
    times.append(watch.lap())
    guard settings.backward else { return times }
    let gradients = try baseline.combineBackward(home, output: rows)
    times.append(watch.lap())
    _ = try baseline.dispatchBackward(gradients)
    return times + [watch.lap()]
  }

  /// Runs both, untimed, and counts the values that differ in any bit; 0 for settings that may differ. With shared copies, and
  /// with allgather, weighted rows are added in another order: their sums may differ by rounding. With one copy per node an
  /// expert's rows come in another order, too.
  private func check(_ step: Int, _ batches: [Int: Tokens]) throws -> Int {
    let routing = routings[step % routings.count]
    let tokens = batches[routing.tokens]!
    let handle = try crosspoint.dispatch(tokens.batch, routing)
    let baselineRows = try baseline.dispatch(tokens.batch, routing)
    let (copies, perExpert) = (settings.options.copies, handle.rowsPerExpert)
    let isInOrder = copies == .perExpert || copies == .perRank
    var wrong =
      isInOrder
      ? differences(handle.rows, baselineRows, rounding: 0)
      : differences(try sorted(handle.rows, perExpert), try sorted(baselineRows, perExpert), rounding: 0)
    let rounding: Float = copies == .perExpert && settings.baseline == .plain ? 0 : 1e-5
    let home = try crosspoint.combine(handle.rows, handle)
    let baselineHome = try baseline.combine(baselineRows)
    wrong += differences(home, baselineHome, rounding: rounding)
    if settings.backward {
      let gradients = try crosspoint.combineBackward(home, handle)
      let baselineGradients = try baseline.combineBackward(baselineHome, output: baselineRows)
      if isInOrder { wrong += differences(gradients, baselineGradients, rounding: 2 * rounding) }
      wrong += differences(
        try crosspoint.dispatchBackward(gradients, handle), try baseline.dispatchBackward(baselineGradients),
        rounding: 3 * rounding)
    }
    return settings.options.isLossless ? wrong : 0
  }

  /// The rows of each expert in the order of their values.
  private func sorted(_ rows: borrowing TokenBatch, _ perExpert: [Int]) throws -> TokenBatch {
    let result = try TokenBatch(rows: rows.rows, hidden: rows.hidden)
    var first = 0
    for count in perExpert {
      let order = (first..<first + count).sorted { rows.row($0).lexicographicallyPrecedes(rows.row($1)) }
      for (place, row) in order.enumerated() { _ = result.row(first + place).update(fromContentsOf: rows.row(row)) }
      first += count
    }
    return result
  }

  private func differences(_ ours: borrowing TokenBatch, _ theirs: borrowing TokenBatch, rounding: Float) -> Int {
    zip(ours.elements, theirs.elements).count {
      $0.bitPattern != $1.bitPattern && !(($0 - $1).magnitude <= rounding * $1.magnitude)
    }
  }
}

/// What this rank moved, by transfer, summed over iterations.
struct BaselineTraffic {
  /// Bytes that the baseline sent to other ranks, and bytes of its rows that stayed.
  private(set) var moved: [(sent: Int, kept: Int)]
  /// Routed rows, however they travel: all, and those that cross to another rank.
  private(set) var routed: [(all: Int, away: Int)]
  private let transfers: [TransferKind]

  init(_ transfers: [TransferKind]) {
    self.transfers = transfers
    moved = transfers.map { _ in (0, 0) }
    routed = transfers.map { _ in (0, 0) }
  }

  /// Adds the last step.
  mutating func add(_ baseline: any BaselineExchange, rank: Int) {
    for (index, transfer) in transfers.enumerated() {
      let traffic = baseline.traffic(transfer)
      moved[index].sent += traffic.sent
      moved[index].kept += traffic.kept
      let rows = transfer.isToExperts ? baseline.sentRows : baseline.receivedRows
      routed[index].all += rows.reduce(0, +)
      routed[index].away += rows.reduce(0, +) - rows[rank]
    }
  }
}
