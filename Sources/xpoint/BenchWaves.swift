import ArgumentParser
import Crosspoint
import CrosspointCore
import CrosspointFiles
import CrosspointOptions
import Foundation

struct BenchWaves: RankCommand {
  static let configuration = CommandConfiguration(
    commandName: "waves",
    abstract:
      "Times an MoE layer whose experts begin with the rows that are there against one whose experts wait for all.",
    discussion: """
      A layer is all four transfers. Experts sleep instead of computing, --row-time for each row and pass, so that a rank \
      takes what it would with a processor of its own, however many share this machine's. Both compute the gradients of \
      their weights in dispatchBackward, while those of the rows travel. They take turns, iteration by iteration; the \
      slowest rank decides every time; results are compared bit for bit.

      Examples:
        xpoint bench waves --simulated 4 --link-speed 125 --link-latency 50
        xpoint bench waves --simulated 4 --link-speed 125 --link-latency 50 --copies rank --wire bf16
        mpirun -n 4 xpoint bench waves
      """)

  @OptionGroup var layer: LayerArguments
  @Option(help: ArgumentHelp("What an expert takes for a row forward, and twice backward.", valueName: "µs"))
  var rowTime = 10.0
  @Option(help: ArgumentHelp("Which experts the tokens want.", valueName: "uniform|W0…W7|zipf"))
  var pattern = RoutingPattern.uniform
  @Option(help: "Timed runs of each.")
  var iterations = 20
  @Option(help: "Runs of each before that.")
  var warmup = 4
  @OptionGroup var ranks: SimulatedArguments
  @OptionGroup var output: RecordArguments
  @OptionGroup var exchange: ExchangeArguments

  func validate() throws {
    try Ranges.require(
      ("--iterations", iterations, Ranges.runs), ("--warmup", warmup, Ranges.runs))
    guard (0...1e6).contains(rowTime) else { throw ValidationError("--row-time is \(rowTime): 0 to 1000000") }
    try layer.requireMemory(onRanks: ranks.simulated ?? 1)
  }

  var deadline: Duration { .seconds(600) }

  var cluster: SimulatedCluster? { ranks.cluster(deadline: deadline) }

  func job() throws(CrosspointError) -> @Sendable (any Fabric) throws -> Void {
    let settings = WavesTrial.Settings(
      tokens: layer.tokens, hidden: layer.hidden, topK: layer.topK, experts: layer.experts, pattern: pattern,
      rowSeconds: rowTime / 1e6, options: exchange.exchangeOptions)
    return { [settings, iterations, warmup, output] fabric in
      try fabric.requireEqual(
        settings.pairs + [("iterations", "\(iterations)"), ("warmup", "\(warmup)")], operation: "options")
      let trial = try WavesTrial(settings, fabric: fabric)
      var seconds: [[Double]] = [[], []]
      var wrong = 0
      for iteration in 0..<warmup + iterations {
        let results = try inTurns(iteration, [false, true]) { try trial.step(inWaves: $0) }
        wrong += results[0].bits == results[1].bits ? 0 : 1
        guard iteration >= warmup else { continue }
        for (way, result) in results.enumerated() { seconds[way].append(result.seconds) }
      }
      let everyones = try fabric.gather(seconds[0] + seconds[1] + [Double(wrong)], operation: "bench")
      let times = [0, 1].map { way in
        SlowestTimes(everyones.map { $0[way * iterations..<(way + 1) * iterations] })
      }
      let ratio = Samples(ratiosOf: times[1].seconds, over: times[0].seconds)
      try fabric.onRoot(operation: "report") { () throws(CrosspointError) in
        var table = Table(columns: ["experts", "min_ms", "median_ms", "ratio_min", "ratio_median", "ratio_max"])
        var records: [BenchRecord] = []
        for (way, name) in ["at-once", "waves"].enumerated() {
          let seconds = Samples(times[way].seconds)
          let ratios = way == 0 ? ["", "", ""] : [ratio.minimum, ratio.median, ratio.maximum].map { $0.fixed(2) }
          table.append([name, (1e3 * seconds.minimum).fixed(1), (1e3 * seconds.median).fixed(1)] + ratios)
          records.append(
            BenchRecord(
              op: "layer", implementation: name, ranks: fabric.rankCount, tokensPerRank: settings.tokens,
              hidden: settings.hidden, topK: settings.topK, pattern: settings.pattern.rawValue, seconds: seconds,
              slowestRank: times[way].rank, ratio: way == 0 ? nil : ratio))
        }
        print("# \(fabric.rankCount) ranks; \(iterations) timed runs each, taking turns; \(settings.options)")
        print(table.text)
        try output.write(records)
        try expectNothingWrong(Int(everyones.reduce(0) { $0 + $1.last! }), "steps give other bits in waves")
      }
    }
  }
}

/// An MoE layer on one rank.
private final class WavesTrial {
  struct Settings: Sendable {
    var tokens: Int
    var hidden: Int
    var topK: Int
    var experts: Int
    var pattern: RoutingPattern
    var rowSeconds: Double
    var options: ExchangeOptions

    /// What is the same on every rank.
    var pairs: [(key: String, value: String)] {
      [
        ("tokens", "\(tokens)"), ("hidden", "\(hidden)"), ("top-k", "\(topK)"), ("experts", "\(experts)"),
        ("pattern", pattern.rawValue), ("row-time", "\(rowSeconds)"),
      ]
    }
  }

  private let settings: Settings
  private let fabric: any Fabric
  private let exchange: ExpertExchange
  private let routing: Routing
  private let tokens: TokenBatch
  /// Seconds that experts have yet to take: a short sleep lasts longer than it should.
  private var owed = 0.0

  init(_ settings: Settings, fabric: any Fabric) throws {
    (self.settings, self.fabric) = (settings, fabric)
    let layout = try ExpertLayout(experts: settings.experts, hidden: settings.hidden)
    let options = try settings.options.decidingCopies(topK: settings.topK, layout: layout, fabric: fabric)
    exchange = try ExpertExchange(fabric: fabric, layout: layout, options: options)
    routing = try settings.pattern.routing(
      tokens: settings.tokens, topK: settings.topK, experts: settings.experts, at: .init(of: fabric, layout), step: 0,
      seed: settings.options.seed)
    tokens = try TokenBatch(
      randomRows: routing.tokens, hidden: settings.hidden, seed: settings.options.seed, rank: fabric.rank)
  }

  /// One step; the bits of its results. Collective.
  func step(inWaves: Bool) throws -> (seconds: Double, bits: [UInt32]) {
    try fabric.barrier(operation: "bench")
    var watch = Stopwatch()
    let handle =
      inWaves
      ? try exchange.dispatch(tokens, routing) { handle, wave throws(CrosspointError) in
        compute(wave.rows, of: handle.rows, try handle.outputs())
      } : try exchange.dispatch(tokens, routing)
    if !inWaves { compute(handle.rowsPerExpert, of: handle.rows, try handle.outputs()) }
    let y = try exchange.combine(handle.outputs(), handle)
    if inWaves {
      _ = try exchange.combineBackward(y, handle) { rows, wave throws(CrosspointError) in
        compute(wave.rows, of: rows, try handle.rowGradients())
      }
    } else {
      let rows = try exchange.combineBackward(y, handle)
      compute(handle.rowsPerExpert, of: rows, try handle.rowGradients())
    }
    var weights = handle.rowsPerExpert.makeIterator()
    let dTokens = try exchange.dispatchBackward(handle.rowGradients(), handle) {
      guard let rows = weights.next() else { return false }
      spend(rows, elapsed: 0)
      return true
    }
    sleep(atLeast: 0)
    try exchange.settle()
    return (watch.lap(), (y.array + dTokens.array).map(\.bitPattern))
  }

  /// Twice the rows, in the time that an expert takes.
  private func compute(_ range: Range<Int>, of rows: borrowing TokenBatch, _ results: borrowing TokenBatch) {
    var watch = Stopwatch()
    for row in range {
      let (x, y) = (rows.row(row), results.row(row))
      for column in 0..<settings.hidden { y[column] = 2 * x[column] }
    }
    spend(range.count, elapsed: watch.lap())
  }

  /// Takes the time of an expert for so many rows.
  private func spend(_ rows: Int, elapsed: Double) {
    owed += Double(rows) * settings.rowSeconds - elapsed
    sleep(atLeast: 0.0005)
  }

  private func sleep(atLeast least: Double) {
    guard owed > least else { return }
    var watch = Stopwatch()
    Thread.sleep(forTimeInterval: owed)
    owed -= watch.lap()
  }

  /// The same for all rows, expert by expert.
  private func compute(_ rowsPerExpert: [Int], of rows: borrowing TokenBatch, _ results: borrowing TokenBatch) {
    var start = 0
    for count in rowsPerExpert where count > 0 {
      compute(start..<start + count, of: rows, results)
      start += count
    }
  }
}
