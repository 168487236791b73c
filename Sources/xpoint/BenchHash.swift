import ArgumentParser
import Crosspoint
import CrosspointOptions
import Foundation

struct BenchHash: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "hash",
    abstract: "Times cross-polytope hashing and clustering on one core, beside a plain memory copy.",
    discussion: """
      hash: one rotation per row feeds all functions. plain: every function rotates the row for itself, with the same \
      kernels. cluster: hash, buckets and centroids of all rows as one expert's. all: cluster, and every row's residual \
      added to an output. codes: the buckets of all rows, uncentred, and the rotations of their codes at both ends, with a \
      rotation for each (crosspoint) or one for both. Speeds are GB/s of fp32 input; x copy is the speed as a fraction of a \
      memory copy of the same rows, timed in turn.

      With --baseline, which benchmarks/hash builds, also rotate-per-function: the usual hash, its largest coordinate found \
      by a scalar or a vectorised loop; the lines # hash and # all are the ratios of its time to ours.

      Examples:
        xpoint bench hash
        xpoint bench hash --input X.npy --compression lsh:functions=2,width=64 --json hash.json
        for k in scalar avx2 avx512; do xpoint bench hash --kernels $k; done
      """)

  @Option(help: ArgumentHelp("Functions to hash with.", valueName: "lsh[:…]|lsh-moe"))
  var compression = ExchangeOptions.Compression.lshMoE
  @Option(help: ArgumentHelp("Shared library to measure against.", valueName: "library"))
  var baseline: String?
  @OptionGroup var common: LocalBenchArguments

  /// Something to time.
  private struct Job {
    var op: String
    var implementation: String
    var run: () throws -> Void
  }

  func run() throws {
    guard case .crossPolytope(let options) = compression else {
      throw ValidationError("--compression off hashes nothing: use lsh or lsh-moe")
    }
    try common.chooseKernels()
    let batch = try common.batch()
    let (rows, hidden, base) = (batch.rows, batch.hidden, batch.base)
    let inputBytes = 4 * rows * hidden
    let baseline = try baseline.map {
      try RotatePerFunction(
        library: $0, hidden: hidden, functions: options.functions, rounds: options.rounds, seed: common.seed)
    }
    let copyBatch = try TokenBatch(rows: rows, hidden: hidden)
    let centroidBatch = try TokenBatch(rows: rows, hidden: hidden)
    let scratchBatch = try TokenBatch(rows: 1, hidden: hidden)
    let (copy, centroids, scratch) = (copyBatch.base, centroidBatch.base, scratchBatch.base)
    let hash = try CrossPolytopeHash(options: options, hidden: hidden, seed: common.seed)
    let separate = try (0..<options.functions).map { function throws(CrosspointError) in
      try CrossPolytopeHash(
        options: ClusterOptions(functions: 1, rounds: options.rounds, centred: false), hidden: hidden,
        seed: common.seed &+ UInt64(function))
    }
    let clusterer = try TokenClusterer(options: options, hidden: hidden, seed: common.seed, pool: BufferPool())
    var ids = [UInt32](repeating: 0, count: rows * options.functions)
    let members = (0..<rows).map { Int32($0) }
    var clusterOf = [Int32](repeating: 0, count: rows)
    var counts = clusterOf
    var clusters = 0
    let shared = try SharedRotation(options: options, rows: rows, hidden: hidden, seed: common.seed)

    func cluster() throws {
      try clusterer.prepare(batch)
      try members.withUnsafeBufferPointer { members throws(CrosspointError) in
        clusters = try clusterer.cluster(members, clusterOf: &clusterOf)
        clusterer.centroids(
          base, members, clusterOf: clusterOf, clusters: clusters, into: centroids, counts: &counts)
      }
    }
    let ours = "crosspoint/\(kernelName)"
    var jobs = [
      Job(op: "copy", implementation: "memcpy") { memcpy(copy, base, inputBytes) },
      Job(op: "hash", implementation: ours) { hash.ids(of: base, count: rows, into: &ids, scratch: scratch) },
      Job(op: "hash", implementation: "plain") {
        for function in separate { function.ids(of: base, count: rows, into: &ids, scratch: scratch) }
      },
      Job(op: "cluster", implementation: ours, run: cluster),
      Job(op: "all", implementation: ours) {
        try cluster()
        for row in 0..<rows {
          kernels.axpy_difference(
            copy + row * hidden, 1, base + row * hidden, centroids + Int(clusterOf[row]) * hidden, hidden)
        }
      },
      Job(op: "codes", implementation: ours) { shared.twice(base) },
      Job(op: "codes", implementation: "one rotation") { shared.once(base) },
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
    let codes = jobs.indices.filter { jobs[$0].op == "codes" }
    let longer = Samples(ratiosOf: seconds[codes[1]], over: seconds[codes[0]])
    print(
      "# codes: one rotation for both takes \(longer.median.fixed(2)) times as long",
      "(min \(longer.minimum.fixed(2)), max \(longer.maximum.fixed(2)))")
    print("# \(clusters) clusters")
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
          op: job.op, implementation: job.implementation, ranks: 1, tokensPerRank: rows, hidden: hidden, topK: 1,
          pattern: "\(compression)", bytes: 0, medianSeconds: times.median, p99Seconds: times.percentile(99),
          slowestRank: 0))
    }
    print("# kernels: \(kernelName); \(rows) rows of \(hidden); \(compression); \(common.iterations) timed runs")
    print(table.text)
    if let json = common.json { try Files.writeJSON(records, to: json) }
  }
}
