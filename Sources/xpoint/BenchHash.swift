import ArgumentParser
import Crosspoint
import CrosspointFiles
import CrosspointOptions
import Foundation

struct BenchHash: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "hash",
    abstract: "Times cross-polytope hashing and clustering on one core, beside a plain memory copy.",
    discussion: """
      hash: one rotation per row feeds all functions. plain: every function rotates the row for itself, with the same \
      kernels. cluster: hash, buckets and centroids of all rows as one expert's. all: cluster, and the residual of every \
      row that shares its cluster added to an output. Speeds are GB/s of fp32 input; x copy is the speed as a fraction of a \
      memory copy of the same rows, timed in turn.

      With --baseline, which benchmarks/hash builds, also rotate-per-function: the usual hash, its largest coordinate found \
      by a scalar or a vectorised loop; the lines # hash and # all are the ratios of its time to ours.

      Examples:
        xpoint bench hash --alike 5
        xpoint bench hash --input X.npy --compression lsh:functions=2,width=64 --json hash.json
        for k in scalar avx2 avx512; do xpoint bench hash --kernels $k; done
      """)

  @Option(
    help: ArgumentHelp("Functions to hash with.", valueName: "lsh[:…]|lsh-moe"),
    transform: reading(ExchangeOptions.Compression.init(named:)))
  var compression = ExchangeOptions.Compression.lshMoE
  @Option(help: "Rows of each kind, which differ by a hundredth, without --input; 1: no two are alike.")
  var alike = 1
  @Option(help: ArgumentHelp("Shared library to measure against.", valueName: "library"))
  var baseline: String?
  @OptionGroup var common: LocalBenchArguments

  /// Something to time.
  private struct Job {
    var op: String
    var implementation: String
    var run: () throws -> Void
  }

  func validate() throws {
    guard alike == 1 || (alike > 1 && alike <= common.rows && common.input == nil) else {
      throw ValidationError("--alike is \(alike); 1 to \(common.rows), the rows, is possible, and 1 with --input")
    }
  }

  func run() throws {
    guard case .crossPolytope(let options) = compression else {
      throw ValidationError("--compression off hashes nothing: use lsh or lsh-moe")
    }
    try common.chooseKernels()
    let batch = try common.batch()
    if common.input == nil { makeAlike(batch) }
    let (rows, hidden, base) = (batch.rows, batch.hidden, batch.base)
    let inputBytes = 4 * rows * hidden
    let baseline = try baseline.map {
      try RotatePerFunction(
        library: $0, hidden: hidden, functions: options.functions, rounds: options.rounds, seed: common.seed)
    }
    let copy = try TokenBatch(rows: rows, hidden: hidden)
    let scratch = try TokenBatch(rows: 1, hidden: hidden)
    let hash = try CrossPolytopeHash(options: options, hidden: hidden, seed: common.seed)
    let separate = try (0..<options.functions).map { function throws(CrosspointError) in
      var single = options
      (single.functions, single.width, single.centred) = (1, nil, false)
      return try CrossPolytopeHash(options: single, hidden: hidden, seed: common.seed &+ UInt64(function))
    }
    var ids = [UInt32](repeating: 0, count: rows * options.functions)
    let trial = try ClusterTrial(options: options, rows: rows, hidden: hidden, seed: common.seed)
    let ours = "crosspoint/\(kernelName)"
    var jobs = [
      Job(op: "copy", implementation: "memcpy") { memcpy(copy.base, base, inputBytes) },
      Job(op: "hash", implementation: ours) { hash.ids(of: base, count: rows, into: &ids, scratch: scratch.base) },
      Job(op: "hash", implementation: "plain") {
        for function in separate { function.ids(of: base, count: rows, into: &ids, scratch: scratch.base) }
      },
      Job(op: "cluster", implementation: ours) { try trial.cluster(batch) },
      Job(op: "all", implementation: ours) { try trial.clusterAndCompensate(batch, into: copy) },
    ]
    if let baseline {
      for (kind, vectorised) in [("scalar", false), ("vectorised", true)] {
        jobs.append(
          Job(op: "hash", implementation: "rotate-per-function/\(kind)") {
            baseline.ids(of: base, count: rows, into: &ids, vectorised: vectorised)
          })
      }
    }
    let seconds = try common.timeInTurn(jobs.count) { try jobs[$0].run() }

    try report(jobs, seconds, rows: rows, hidden: hidden)
    if baseline != nil {
      for index in jobs.indices where jobs[index].implementation == ours && ["hash", "all"].contains(jobs[index].op) {
        for other in jobs.indices where jobs[other].implementation.hasPrefix("rotate-per-function") {
          let ratio = Samples(ratiosOf: seconds[other], over: seconds[index])
          print(
            "# \(jobs[index].op): \(ratio.median.fixed(2)) times as fast as \(jobs[other].implementation)'s hash",
            "(min \(ratio.minimum.fixed(2)), max \(ratio.maximum.fixed(2)))")
        }
      }
    }
    print("# \(trial.clusters) clusters")
  }

  /// Leaves the first rows as they are, one of each kind, and makes the others alike in turn.
  private func makeAlike(_ batch: borrowing TokenBatch) {
    let kinds = (batch.rows + alike - 1) / alike
    for row in kinds..<batch.rows {
      let (kind, row) = (batch.row(row % kinds), batch.row(row))
      for column in row.indices { row[column] = kind[column] + 0.01 * row[column] }
    }
  }

  private func report(_ jobs: [Job], _ seconds: [[Double]], rows: Int, hidden: Int) throws {
    let inputBytes = Double(4 * rows * hidden)
    var table = Table(columns: ["op", "implementation", "median(us)", "p99(us)", "speed(GB/s)", "x copy"])
    var records: [BenchRecord] = []
    for (job, runs) in zip(jobs, seconds) {
      let times = Samples(runs)
      table.append([
        job.op, job.implementation, times.median.microseconds, times.percentile(99).microseconds,
        (inputBytes / times.median).gigabytes, Samples(ratiosOf: seconds[0], over: runs).median.fixed(3),
      ])
      records.append(
        BenchRecord(
          op: job.op, implementation: job.implementation, tokensPerRank: rows, hidden: hidden,
          pattern: "\(compression)", seconds: times))
    }
    let kinds = common.input == nil ? ", \(alike) of each kind" : ""
    print(
      "# kernels: \(kernelName); \(rows) rows of \(hidden)\(kinds); \(compression); \(common.iterations) timed runs")
    print(table.text)
    try common.output.write(records)
  }
}
