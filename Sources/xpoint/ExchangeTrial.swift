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
    var iterations: Int
    var warmup: Int
    var options: ExchangeOptions

    /// Every rank must do the same trial. Collective.
    func agree(on fabric: any Fabric) throws(CrosspointError) {
      try fabric.requireEqual(
        [
          ("tokens", "\(tokens)"), ("hidden", "\(hidden)"), ("input", input.map { "\($0.count) numbers" } ?? "random"),
          ("top-k", "\(topK)"), ("experts", "\(experts)"), ("pattern", pattern.rawValue),
          ("iterations", "\(iterations)"), ("warmup", "\(warmup)"),
        ] + options.pairs, operation: "options")
    }
  }

  /// Routings that differ from step to step, prepared in advance.
  private static let steps = 8

  let settings: Settings
  private let fabric: any Fabric
  private let crosspoint: ExpertExchange
  private let plain: PlainExchange
  private let routings: [Routing]

  init(_ settings: Settings, fabric: any Fabric, transport: any PlainTransport) throws {
    self.settings = settings
    self.fabric = fabric
    let layout = try ExpertLayout(experts: settings.experts, hidden: settings.hidden)
    crosspoint = try ExpertExchange(fabric: fabric, layout: layout, options: settings.options)
    plain = PlainExchange(transport: transport, layout: layout, rank: fabric.rank, rankCount: fabric.rankCount)
    let place = RoutingPattern.Place(rank: fabric.rank, rankCount: fabric.rankCount) { [ranks = fabric.rankCount] in
      layout.experts(of: $0, rankCount: ranks)
    }
    routings = try (0..<Self.steps).map { step in
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
    plain.seconds = .init()
    // [op][implementation][iteration]: dispatch, combine and both; crosspoint, plain.
    var seconds = [[[Double]]](repeating: [[], []], count: 3)
    var plainTraffic = PlainTraffic()
    for iteration in 0..<settings.iterations {
      let routing = routings[iteration % Self.steps]
      let tokens = batches[routing.tokens]!
      let times = [try timeCrosspoint(tokens, routing), try timePlain(tokens, routing)]
      for (implementation, (dispatch, combine)) in times.enumerated() {
        seconds[0][implementation].append(dispatch)
        seconds[1][implementation].append(combine)
        seconds[2][implementation].append(dispatch + combine)
      }
      plainTraffic.add(plain, rank: fabric.rank)
    }
    let (statistics, plainSeconds) = (crosspoint.statistics, plain.seconds)
    wrong += try check(settings.iterations, batches)
    return try ExchangeReport(
      settings: settings, fabric: fabric, seconds: seconds, statistics: statistics, plain: plainTraffic,
      plainSeconds: plainSeconds, wrong: wrong)
  }

  /// The tokens of a rank; a class, so that a dictionary can hold it.
  private final class Tokens {
    let batch: TokenBatch

    init(_ rows: Int, _ settings: Settings, _ fabric: any Fabric) throws {
      batch = try TokenBatch(rows: rows, hidden: settings.hidden)
      if let input = settings.input {
        // Ranks begin at even distances, and at the first row again after the last.
        let start = input.count / settings.hidden * fabric.rank / fabric.rankCount * settings.hidden
        for index in batch.elements.indices { batch.elements[index] = input[(start + index) % input.count] }
        return
      }
      var generator = SplitMix64(seed: settings.options.seed &+ UInt64(fabric.rank) &+ 1)
      for index in batch.elements.indices { batch.elements[index] = generator.nextUnit() - 0.5 }
    }
  }

  private typealias Times = (dispatch: Double, combine: Double)

  private func timeCrosspoint(_ tokens: Tokens, _ routing: Routing) throws -> Times {
    try fabric.barrier(operation: "bench")
    var watch = Stopwatch()
    let handle = try crosspoint.dispatch(tokens.batch, routing)
    let dispatch = watch.lap()
    let home = try crosspoint.combine(handle.rows, handle)
    let combine = watch.lap()
    _ = consume home
    return (dispatch, combine)
  }

  private func timePlain(_ tokens: Tokens, _ routing: Routing) throws -> Times {
    try fabric.barrier(operation: "bench")
    var watch = Stopwatch()
    let rows = try plain.dispatch(tokens.batch, routing)
    let dispatch = watch.lap()
    let home = try plain.combine(rows)
    let combine = watch.lap()
    _ = consume home
    return (dispatch, combine)
  }

  /// Runs both, untimed, and counts the values that differ in any bit; 0 for settings that may differ. With one copy per
  /// rank weighted rows are added in another order: their sums may differ by rounding.
  private func check(_ step: Int, _ batches: [Int: Tokens]) throws -> Int {
    let routing = routings[step % Self.steps]
    let tokens = batches[routing.tokens]!
    let handle = try crosspoint.dispatch(tokens.batch, routing)
    let home = try crosspoint.combine(handle.rows, handle)
    let plainRows = try plain.dispatch(tokens.batch, routing)
    let plainHome = try plain.combine(plainRows)
    guard settings.options.isLossless else { return 0 }
    let rounding: Float = settings.options.copies == .perRank ? 1e-5 : 0
    return zip(home.elements, plainHome.elements).count {
      $0.bitPattern != $1.bitPattern && !(($0 - $1).magnitude <= rounding * $1.magnitude)
    }
      + zip(handle.rows.elements, plainRows.elements).count { $0.bitPattern != $1.bitPattern }
  }
}

/// What the plain exchange moved on this rank, as rows.
struct PlainTraffic {
  var sentAway = 0
  var sentHere = 0
  var receivedAway = 0
  var countBytes = 0

  mutating func add(_ plain: PlainExchange, rank: Int) {
    sentHere += plain.sentRows[rank]
    sentAway += plain.sentAway
    receivedAway += plain.receivedAway
    countBytes += plain.countBytes
  }
}
