import ArgumentParser
import Crosspoint
import CrosspointFiles
import CrosspointOptions
import CrosspointTokens
import MPI

struct BenchAlltoall: RankCommand {
  static let configuration = CommandConfiguration(
    commandName: "alltoall",
    abstract: "Times the fabric's exchange against MPI_Alltoallv over a sweep of sizes.",
    discussion: """
      Run it under mpirun. Every rank sends the same number of bytes to every rank, itself included; then all vote. \
      crosspoint is the fabric with memory shared within a node, messages the same without, plain MPI_Alltoallv or, for \
      the vote, MPI_Allreduce. docs/benchmarks.md explains the columns.

      Examples:
        mpirun -n 2 xpoint bench alltoall
        mpirun -n 4 xpoint bench alltoall --min-bytes 65536 --max-bytes 4194304 --json alltoall.json
      """)

  @Option(help: "Smallest number of bytes for each peer.")
  var minBytes = 64
  @Option(help: "Largest number of bytes for each peer; sizes grow fourfold.")
  var maxBytes = 4 << 20
  @Option(help: "Timed runs of each implementation and size.")
  var iterations = 50
  @Option(help: "Runs of each before that.")
  var warmup = 5
  @OptionGroup var output: RecordArguments

  func validate() throws {
    try Ranges.require(
      ("--min-bytes", minBytes, 1...1 << 30), ("--iterations", iterations, Ranges.runs),
      ("--warmup", warmup, Ranges.runs))
    try Ranges.require(("--max-bytes", maxBytes, minBytes...1 << 30))
  }

  var cluster: SimulatedCluster? { nil }
  var deadline: Duration { .seconds(600) }

  func job() throws(CrosspointError) -> @Sendable (any Fabric) throws -> Void {
    let sweep = Sweep(minBytes: minBytes, maxBytes: maxBytes, iterations: iterations, warmup: warmup, output: output)
    return { fabric in
      guard let fabric = fabric as? MPIFabric else { preconditionFailure("MPI is compared with itself") }
      try sweep.run(on: fabric)
    }
  }
}

/// All sizes, one after the other, and a vote.
private struct Sweep {
  let minBytes: Int
  let maxBytes: Int
  let iterations: Int
  let warmup: Int
  let output: RecordArguments

  func run(on fabric: MPIFabric) throws {
    try fabric.requireEqual(
      [
        ("min-bytes", "\(minBytes)"), ("max-bytes", "\(maxBytes)"), ("iterations", "\(iterations)"),
        ("warmup", "\(warmup)"),
      ], operation: "options")
    let ranks = fabric.rankCount
    let messages = try MPIFabric(fabric.communicator, deadline: fabric.deadline, sharesMemory: false)
    let sharing = try fabric.gather([fabric.sharedMemory == nil ? 0 : 1], operation: "bench").count { $0[0] == 1 }
    var table = Table(columns: [
      "size(B)", "implementation", "min(us)", "median(us)", "p99(us)", "algbw(GB/s)", "busbw(GB/s)", "slowest",
      "#wrong",
      "ratio",
    ])
    var records: [BenchRecord] = []
    var wrong = 0
    func report(_ op: String, _ bytes: Int, _ trial: any Trial) throws {
      let results = try trial.run(warmup: warmup, iterations: iterations, on: fabric)
      let plain = results[Implementation.plain.rawValue].times.seconds
      for (implementation, result) in zip(Implementation.allCases, results) {
        let seconds = Samples(result.times.seconds)
        let ratio = Samples(ratiosOf: result.times.seconds, over: plain)
        let algorithm = Double(bytes * ranks) / seconds.median
        wrong += result.wrong
        table.append([
          op == "vote" ? op : "\(bytes)", "\(implementation)", seconds.minimum.microseconds,
          seconds.median.microseconds, seconds.percentile(99).microseconds, algorithm.gigabytes,
          (algorithm * Double(ranks - 1) / Double(ranks)).gigabytes, "\(result.times.rank)", "\(result.wrong)",
          ratio.median.fixed(3),
        ])
        records.append(
          BenchRecord(
            op: op, implementation: "\(implementation)", ranks: ranks, tokensPerRank: 0, hidden: 0, topK: 0,
            pattern: "equal", bytes: bytes * (ranks - 1), seconds: seconds, slowestRank: result.times.rank,
            ratio: implementation == .plain ? nil : ratio))
      }
    }
    for bytes in sequence(first: minBytes, next: { $0 * 4 }).prefix(while: { $0 <= maxBytes }) {
      try report("alltoall", bytes, try AlltoallTrial(bytes: bytes, fabric: fabric, messages: messages))
    }
    try report("vote", 0, VoteTrial(fabric: fabric, messages: messages))
    try fabric.onRoot(operation: "report") { () throws(CrosspointError) in
      print("# \(ranks) MPI ranks, \(sharing) of which share memory; \(iterations) timed runs each, taking turns")
      print("# size: bytes for each peer; small ones many times a run")
      for (rank, reason) in fabric.unshared.sorted(by: { $0.key < $1.key }) {
        print("# ranks 0 and \(rank) share no memory: \(reason)")
      }
      print(table.text)
      try output.write(records)
      try expectNothingWrong(wrong, "bytes arrived wrong")
    }
  }
}

private enum Implementation: Int, CaseIterable {
  case crosspoint, messages, plain
}

private struct TrialResult {
  var times: SlowestTimes
  var wrong: Int
}

/// Something that every implementation does.
private protocol Trial {
  /// So many times in a row in one timed run.
  var repeats: Int { get }
  func call(_ implementation: Implementation) throws
  /// Bytes that came wrong to this rank in the last call.
  func wrong(_ implementation: Implementation) -> Int
}

extension Trial {
  /// By implementation. Collective.
  func run(warmup: Int, iterations: Int, on fabric: any Fabric) throws -> [TrialResult] {
    var seconds = Implementation.allCases.map { _ in [Double]() }
    for iteration in 0..<warmup + iterations {
      let times = try inTurns(iteration, Implementation.allCases) { implementation in
        try fabric.barrier(operation: "bench")
        var watch = Stopwatch()
        for _ in 0..<repeats { try call(implementation) }
        return watch.lap() / Double(repeats)
      }
      guard iteration >= warmup else { continue }
      for (implementation, time) in times.enumerated() { seconds[implementation].append(time) }
    }
    return try Implementation.allCases.map { implementation in
      let mine = seconds[implementation.rawValue] + [Double(wrong(implementation))]
      let everyones = try fabric.gather(mine, operation: "bench")
      return TrialResult(
        times: SlowestTimes(everyones.map { $0.dropLast() }), wrong: Int(everyones.reduce(0) { $0 + $1.last! }))
    }
  }
}

/// A vote in which nothing is wrong.
private struct VoteTrial: Trial {
  private let agreements: [Agreement]
  private let communicator: Communicator
  let repeats = 100

  init(fabric: MPIFabric, messages: MPIFabric) {
    agreements = [Agreement(fabric: fabric), Agreement(fabric: messages)]
    communicator = fabric.communicator
  }

  func call(_ implementation: Implementation) throws {
    guard implementation != .plain else {
      _ = try communicator.allreduce(Int32(0), .maximum)
      return
    }
    try agreements[implementation.rawValue].settle(nil, operation: "bench")
  }

  func wrong(_ implementation: Implementation) -> Int { 0 }
}

/// Blocks of one size, in memory as an exchange has it.
private final class AlltoallTrial: Trial {
  private let bytes: Int
  private let fabrics: [MPIFabric]
  private let counts: Blocks
  private let pool: BufferPool
  private let send: UnsafeMutableRawBufferPointer
  private let sendBlocks: [UnsafeRawBufferPointer]
  /// By implementation.
  private let received: [UnsafeMutableRawBufferPointer]
  private let receivedBlocks: [[UnsafeMutableRawBufferPointer]]
  private let buffers: [BufferPool.Buffer]

  init(bytes: Int, fabric: MPIFabric, messages: MPIFabric) throws {
    self.bytes = bytes
    fabrics = [fabric, messages]
    counts = try Blocks(counts: Array(repeating: bytes, count: fabric.rankCount))
    let pool = BufferPool(memory: fabric.sharedMemory)
    let size = bytes * fabric.rankCount
    buffers = try (0...Implementation.allCases.count).map { _ in try pool.lease(bytes: size) }
    let memory = buffers.map { UnsafeMutableRawBufferPointer(start: $0.base, count: size) }
    (self.pool, send, received) = (pool, memory[0], Array(memory[1...]))
    func blocks(_ all: UnsafeMutableRawBufferPointer) -> [UnsafeMutableRawBufferPointer] {
      (0..<fabric.rankCount).map { UnsafeMutableRawBufferPointer(rebasing: all[$0 * bytes..<($0 + 1) * bytes]) }
    }
    sendBlocks = blocks(send).map { UnsafeRawBufferPointer($0) }
    receivedBlocks = received.map(blocks)
    // Every byte tells who sent it to whom.
    for index in send.indices { send[index] = Self.mark(from: fabric.rank, to: index / bytes) }
    for block in received { block.initializeMemory(as: UInt8.self, repeating: 0) }
  }

  deinit { for buffer in buffers { pool.release(buffer) } }

  var repeats: Int { max(1, min(100, (1 << 16) / bytes)) }

  func call(_ implementation: Implementation) throws {
    let index = implementation.rawValue
    guard implementation != .plain else {
      return try fabrics[0].communicator.alltoallv(
        UnsafeRawBufferPointer(send).assumingMemoryBound(to: UInt8.self), counts,
        into: received[index].assumingMemoryBound(to: UInt8.self), counts)
    }
    try fabrics[index].exchange(send: sendBlocks, receive: receivedBlocks[index], operation: "bench")
  }

  func wrong(_ implementation: Implementation) -> Int {
    received[implementation.rawValue].enumerated().count {
      $0.element != Self.mark(from: $0.offset / bytes, to: fabrics[0].rank)
    }
  }

  private static func mark(from source: Int, to target: Int) -> UInt8 { UInt8((37 * source + 11 * target + 1) % 256) }
}
