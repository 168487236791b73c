import ArgumentParser
import Crosspoint
import CrosspointBaseline
import CrosspointCore
import CrosspointFiles
import CrosspointOptions

extension RoutingPattern: ExpressibleByArgument {}

/// What an exchange is compared with.
enum Baseline: String, CaseIterable, ExpressibleByArgument {
  /// Pack + MPI_Alltoallv + unpack.
  case plain
  /// MPI_Allgatherv + select, and MPI_Reduce_scatter back.
  case allgather
}

struct BenchExchange: RankCommand {
  static let configuration = CommandConfiguration(
    commandName: "exchange",
    abstract: "Times an exchange of rows with experts against pack + MPI_Alltoallv + unpack, or allgather + select.",
    discussion: """
      Run it under mpirun. Both implementations get the same tokens and routings and take turns, iteration by \
      iteration; the slowest rank decides every time; results are compared bit for bit when the settings are lossless. \
      Patterns: uniform, W0 balanced, W1 hot experts, W2 hot rank, W3 spread, W4 source-ragged, W5 zero-expert rank, \
      W6 rotating, W7 burst, zipf; or the routings of a training run. docs/benchmarks.md explains the columns.

      Examples:
        mpirun -n 2 xpoint bench exchange
        mpirun -n 2 xpoint bench exchange --backward --csv exchange.csv
        mpirun -n 4 xpoint bench exchange --pattern W2 --iterations 50 --json w2.json
        mpirun -n 4 xpoint bench exchange --baseline allgather --top-k 8 --experts 64 --copies rank
        mpirun -n 2 xpoint bench exchange --input X.npy --compression lsh --wire rotated:4
        mpirun -n 4 moe-lm train --data text --steps 200 --record-routing R.npy
        mpirun -n 4 xpoint bench exchange --routing R.npy --experts 8
        xpoint bench exchange --simulated 4 --tokens 256 --hidden 64
        xpoint bench exchange --simulated 2 --link-speed 125 --link-latency 50 --wire rotated:4
      """)

  @OptionGroup var layer: LayerArguments
  @Option(
    help: ArgumentHelp(
      "float32 rows [rows, hidden] to take tokens from, instead of --hidden; random numbers, of which no two rows are alike, if left out.",
      valueName: "X.npy"))
  var input: String?
  @Option(help: ArgumentHelp("Which experts the tokens want.", valueName: "uniform|W0…W7|zipf"))
  var pattern = RoutingPattern.uniform
  @Option(
    help: ArgumentHelp(
      "Routings that moe-lm train --record-routing wrote, on as many ranks; instead of --tokens, --top-k and --pattern.",
      valueName: "R.npy"))
  var routing: String?
  @Option(help: "Timed runs of each implementation.")
  var iterations = 20
  @Option(help: "Runs of each before that, also checked against each other.")
  var warmup = 8
  @Option(
    help: ArgumentHelp(
      "What to compare with: pack + MPI_Alltoallv + unpack, or MPI_Allgatherv + select and MPI_Reduce_scatter back.",
      valueName: "plain|allgather"))
  var baseline = Baseline.plain
  @Flag(help: "The gradients' two transfers as well.")
  var backward = false
  @OptionGroup var ranks: SimulatedArguments
  @OptionGroup var output: RecordArguments
  @OptionGroup var exchange: ExchangeArguments

  func validate() throws {
    try Ranges.require(
      ("--iterations", iterations, Ranges.runs), ("--warmup", warmup, Ranges.runs))
    if routing == nil { try layer.requireMemory(onRanks: ranks.simulated ?? 1) }
  }

  var deadline: Duration { .seconds(600) }

  var cluster: SimulatedCluster? { ranks.cluster(deadline: deadline) }

  func job() throws(CrosspointError) -> @Sendable (any Fabric) throws -> Void {
    var settings = ExchangeTrial.Settings(
      tokens: layer.tokens, hidden: layer.hidden, topK: layer.topK, experts: layer.experts, pattern: pattern,
      iterations: iterations, warmup: warmup, backward: backward, baseline: baseline,
      options: exchange.exchangeOptions)
    if let input {
      let rows = try Npy.readSomeRows(input, argument: "--input")
      (settings.hidden, settings.input) = (rows.hidden, rows.array)
    }
    if let routing {
      let recorded = try RecordedRoutings(routing, experts: layer.experts)
      (settings.tokens, settings.topK, settings.recorded) = (recorded.rows, recorded.topK, recorded)
    }
    let onLinks = ranks.links.linkSpeed.map { " on links of \($0) MB/s and \(ranks.links.linkLatency) µs" } ?? ""
    return { [settings, baseline, output, ranksPerNode = ranks.links.ranksPerNode] fabric in
      try settings.agree(on: fabric)
      var settings = settings
      settings.options = try settings.options.decidingCopies(
        topK: settings.topK, layout: ExpertLayout(experts: settings.experts, hidden: settings.hidden), fabric: fabric)
      let mpi = (fabric as? MPIFabric).map { MPITransport(communicator: $0.communicator) }
      let report = try ExchangeTrial(
        settings, fabric: fabric, transport: mpi ?? FabricTransport(fabric: fabric)
      ).run()
      let transport =
        mpi == nil
        ? "\(fabric.rankCount) simulated ranks, \(ranksPerNode) a node\(onLinks); \(baseline) moves its bytes over the same fabric"
        : "\(fabric.rankCount) MPI ranks"
      try fabric.onRoot(operation: "report") { () throws(CrosspointError) in
        print(report.text(transport: transport))
        try output.write(report.records)
        try expectNothingWrong(report.wrongValues, "values differ from \(settings.baseline)")
      }
    }
  }
}
