import ArgumentParser
import Crosspoint
import CrosspointOptions

struct BenchHash: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "hash",
    abstract: "Times cross-polytope hashing and clustering on one core, beside a plain memory copy.",
    discussion: """
      hash: one rotation per row feeds all functions. plain: every function rotates the row for itself, with the same \
      kernels. cluster: hash, buckets and centroids of all rows as one expert's. Speeds are GB/s of fp32 input; x copy \
      is the speed as a fraction of a memory copy of the same rows, timed in turn.

      Examples:
        xpoint bench hash
        xpoint bench hash --input X.npy --compression lsh:functions=2,width=64 --json hash.json
        for k in scalar avx2 avx512; do xpoint bench hash --kernels $k; done
      """)

  @Option(help: ArgumentHelp("Functions to hash with.", valueName: "lsh[:…]|lsh-moe"))
  var compression = ExchangeOptions.Compression.lshMoE
  @OptionGroup var common: LocalBenchArguments

  func run() throws {
    guard case .crossPolytope(let options) = compression else {
      throw ValidationError("--compression off hashes nothing: use lsh or lsh-moe")
    }
    try common.chooseKernels()
    let rows = try common.batch()
    let hidden = rows.hidden
    let copy = try TokenBatch(rows: rows.rows, hidden: hidden)
    let centroids = try TokenBatch(rows: rows.rows, hidden: hidden)
    let scratch = try TokenBatch(rows: 1, hidden: hidden)
    let hash = try CrossPolytopeHash(options: options, hidden: hidden, seed: common.seed)
    let separate = try (0..<options.functions).map { function throws(CrosspointError) in
      try CrossPolytopeHash(
        options: ClusterOptions(functions: 1, rounds: options.rounds, centred: false), hidden: hidden,
        seed: common.seed &+ UInt64(function))
    }
    let clusterer = try TokenClusterer(options: options, hidden: hidden, seed: common.seed, pool: BufferPool())
    var ids = [UInt32](repeating: 0, count: rows.rows * options.functions)
    let members = (0..<rows.rows).map { Int32($0) }
    var clusterOf = [Int32](repeating: 0, count: rows.rows)
    var counts = clusterOf
    var clusters = 0

    let hashed = try common.time(copying: rows, to: copy) {
      hash.ids(of: rows.base, count: rows.rows, into: &ids, scratch: scratch.base)
    }
    let plain = try common.time(copying: rows, to: copy) {
      for function in separate { function.ids(of: rows.base, count: rows.rows, into: &ids, scratch: scratch.base) }
    }
    let clustered = try common.time(copying: rows, to: copy) {
      try clusterer.prepare(rows)
      try members.withUnsafeBufferPointer { members throws(CrosspointError) in
        clusters = try clusterer.cluster(members, clusterOf: &clusterOf)
        clusterer.centroids(
          rows.base, members, clusterOf: clusterOf, clusters: clusters, into: centroids.base, counts: &counts)
      }
    }

    let inputBytes = Double(4 * rows.elements.count)
    var table = Table(columns: ["op", "median(us)", "p99(us)", "speed(GB/s)", "x copy", "copy(GB/s)"])
    var records: [BenchRecord] = []
    for (op, implementation, result) in [
      ("hash", "crosspoint/\(kernelName)", hashed), ("hash", "plain", plain),
      ("cluster", "crosspoint/\(kernelName)", clustered),
    ] {
      table.append([
        implementation == "plain" ? "plain" : op, result.job.median.microseconds,
        result.job.percentile(99).microseconds, (inputBytes / result.job.median).gigabytes,
        result.ratio.median.fixed(3), (inputBytes / result.copy.median).gigabytes,
      ])
      records.append(
        BenchRecord(
          op: op, implementation: implementation, ranks: 1, tokensPerRank: rows.rows, hidden: hidden, topK: 1,
          pattern: "\(compression)", bytes: 0, medianSeconds: result.job.median,
          p99Seconds: result.job.percentile(99), slowestRank: 0))
    }
    print("# kernels: \(kernelName); \(rows.rows) rows of \(hidden); \(compression); \(common.iterations) timed runs")
    print(table.text)
    print("# hash is \((plain.job.median / hashed.job.median).fixed(2)) times as fast as plain; \(clusters) clusters")
    if let json = common.json { try Files.writeJSON(records, to: json) }
  }
}
