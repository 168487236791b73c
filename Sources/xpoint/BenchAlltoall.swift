import ArgumentParser
import Crosspoint
import CrosspointFiles
import CrosspointOptions
import MPI

struct BenchAlltoall: RankCommand {
  static let configuration = CommandConfiguration(
    commandName: "alltoall",
    abstract: "Times the fabric's exchange against MPI_Alltoallv over a sweep of sizes.",
    discussion: """
      Run it under mpirun. Every rank sends the same number of bytes to every rank, itself included. docs/benchmarks.md \
      explains the columns.

      Examples:
        mpirun -n 2 xpoint bench alltoall
        mpirun -n 4 xpoint bench alltoall --min-bytes 65536 --max-bytes 4194304 --json alltoall.json
      """)

  @Option(help: "Smallest number of bytes for each peer.")
  var minBytes = 1024
  @Option(help: "Largest number of bytes for each peer; sizes grow fourfold.")
  var maxBytes = 4 << 20
  @Option(help: "Timed runs of each implementation and size.")
  var iterations = 50
  @Option(help: "Runs of each before that.")
  var warmup = 5
  @Option(help: ArgumentHelp("Where the records go.", valueName: "file"))
  var json: String?

  func validate() throws {
    try Ranges.require(
      ("--min-bytes", minBytes, 1...1 << 30), ("--iterations", iterations, Ranges.runs),
      ("--warmup", warmup, Ranges.runs))
    try Ranges.require(("--max-bytes", maxBytes, minBytes...1 << 30))
  }

  var cluster: SimulatedCluster? { nil }
  var deadline: Duration { .seconds(600) }

  func job() throws(CrosspointError) -> @Sendable (any Fabric) throws -> Void {
    let sweep = Sweep(minBytes: minBytes, maxBytes: maxBytes, iterations: iterations, warmup: warmup, json: json)
    return { fabric in
      guard let fabric = fabric as? MPIFabric else { preconditionFailure("MPI is compared with itself") }
      try sweep.run(on: fabric)
    }
  }
}

/// All sizes, one after the other.
private struct Sweep {
  let minBytes: Int
  let maxBytes: Int
  let iterations: Int
  let warmup: Int
  let json: String?

  func run(on fabric: MPIFabric) throws {
    try fabric.requireEqual(
      [
        ("min-bytes", "\(minBytes)"), ("max-bytes", "\(maxBytes)"), ("iterations", "\(iterations)"),
        ("warmup", "\(warmup)"),
      ], operation: "options")
    let ranks = fabric.rankCount
    var table = Table(columns: [
      "size(B)", "implementation", "min(us)", "median(us)", "p99(us)", "algbw(GB/s)", "busbw(GB/s)", "slowest",
      "#wrong",
      "ratio",
    ])
    var records: [BenchRecord] = []
    var wrong = 0
    for bytes in sequence(first: minBytes, next: { $0 * 4 }).prefix(while: { $0 <= maxBytes }) {
      let trial = try AlltoallTrial(bytes: bytes, fabric: fabric)
      let (crosspoint, plain) = try trial.run(warmup: warmup, iterations: iterations)
      let ratio = Samples(zip(crosspoint.times.seconds, plain.times.seconds).map { $0 / $1 }).median
      wrong += crosspoint.wrong + plain.wrong
      for (name, result) in [("crosspoint", crosspoint), ("plain", plain)] {
        let seconds = Samples(result.times.seconds)
        let algorithm = Double(bytes * ranks) / seconds.median
        table.append([
          "\(bytes)", name, seconds.minimum.microseconds, seconds.median.microseconds,
          seconds.percentile(99).microseconds, algorithm.gigabytes,
          (algorithm * Double(ranks - 1) / Double(ranks)).gigabytes, "\(result.times.rank)", "\(result.wrong)",
          name == "plain" ? "1.000" : ratio.fixed(3),
        ])
        records.append(
          BenchRecord(
            op: "alltoall", implementation: name, ranks: ranks, tokensPerRank: 0, hidden: 0, topK: 0, pattern: "equal",
            bytes: bytes * (ranks - 1), medianSeconds: seconds.median, p99Seconds: seconds.percentile(99),
            slowestRank: result.times.rank))
      }
    }
    try fabric.onRoot(operation: "report") { () throws(CrosspointError) in
      print("# \(ranks) MPI ranks; \(iterations) timed runs each, taking turns; size: bytes for each peer")
      print(table.text)
      if let json { try writeJSON(records, to: json, argument: "--json") }
      try expectNothingWrong(wrong, "bytes arrived wrong")
    }
  }
}

/// One size, both implementations.
private struct AlltoallTrial {
  struct Result {
    var times: SlowestTimes
    var wrong: Int
  }

  let bytes: Int
  let fabric: MPIFabric
  private let send: [UInt8]

  init(bytes: Int, fabric: MPIFabric) throws {
    self.bytes = bytes
    self.fabric = fabric
    // Every byte tells who sent it to whom.
    send = (0..<fabric.rankCount).flatMap { peer in
      [UInt8](repeating: Self.mark(from: fabric.rank, to: peer), count: bytes)
    }
  }

  func run(warmup: Int, iterations: Int) throws -> (crosspoint: Result, plain: Result) {
    let blocks = try Blocks(counts: Array(repeating: bytes, count: fabric.rankCount))
    var received = [[UInt8](repeating: 0, count: send.count), [UInt8](repeating: 0, count: send.count)]
    var seconds: [[Double]] = [[], []]
    for iteration in 0..<warmup + iterations {
      for implementation in 0..<2 {
        try fabric.barrier(operation: "bench")
        var watch = Stopwatch()
        try send.withUnsafeBytes { send in
          try received[implementation].withUnsafeMutableBytes { received in
            if implementation == 0 {
              try fabric.exchange(send: parts(send), receive: parts(received), operation: "bench")
            } else {
              try fabric.communicator.alltoallv(
                send.assumingMemoryBound(to: UInt8.self), blocks, into: received.assumingMemoryBound(to: UInt8.self),
                blocks)
            }
          }
        }
        let elapsed = watch.lap()
        if iteration >= warmup { seconds[implementation].append(elapsed) }
      }
    }
    return (try result(seconds[0], received[0]), try result(seconds[1], received[1]))
  }

  private func result(_ seconds: [Double], _ received: [UInt8]) throws -> Result {
    var wrong = 0
    for (index, byte) in received.enumerated() where byte != Self.mark(from: index / bytes, to: fabric.rank) {
      wrong += 1
    }
    let everyones = try fabric.allgather(seconds + [Double(wrong)])
    return Result(
      times: SlowestTimes(everyones.map { $0.dropLast() }), wrong: Int(everyones.reduce(0) { $0 + $1.last! }))
  }

  private static func mark(from source: Int, to target: Int) -> UInt8 { UInt8((37 * source + 11 * target + 1) % 256) }

  private func parts(_ bytes: UnsafeRawBufferPointer) -> [UnsafeRawBufferPointer] {
    (0..<fabric.rankCount).map { UnsafeRawBufferPointer(rebasing: bytes[$0 * self.bytes..<($0 + 1) * self.bytes]) }
  }

  private func parts(_ bytes: UnsafeMutableRawBufferPointer) -> [UnsafeMutableRawBufferPointer] {
    (0..<fabric.rankCount).map {
      UnsafeMutableRawBufferPointer(rebasing: bytes[$0 * self.bytes..<($0 + 1) * self.bytes])
    }
  }
}
