import Foundation
import LaunchSupport
import Testing

/// Memory that one rank does not get, and signals that nothing answers.
@Suite(.serialized)
struct LimitTests {
  /// The tool with a limit on its address space, in KiB.
  private func limited(_ kilobytes: Int) throws -> [String] {
    ["bash", "-c", "ulimit -v \(kilobytes); exec \"$0\" \"$@\"", try Tool.moeLM.executable().path]
  }

  private func start(_ groups: [[String]]) throws -> Launch {
    try Launch(
      Programs.mpirun(), Programs.oversubscribe + groups.joined(separator: [":"]), limit: 30)
  }

  private func expectOneLine(_ outcome: Outcome, rank: Int?) {
    let lines = outcome.errorLines(of: "moe-lm")
    #expect(outcome.exitCode == 1 && outcome.left.isEmpty, "\(outcome)")
    #expect(lines.count == 1, "\(outcome)")
    #expect(rank.map { lines.first?.contains("rank \($0): ") == true } ?? true, "\(outcome)")
    #expect(outcome.seconds < 20, "the deadline of 5 s, and room for a busy machine: \(outcome)")
  }

  /// MPI and OpenBLAS, where they get no memory, crash or try for ever; whether there is enough is asked before.
  @Test(arguments: Repeats.rankCounts) func oneRankWithoutMemoryAtTheStartIsNamed(ranks: Int) throws {
    try TinyRun.use { run in
      let plain = [try Tool.moeLM.executable().path] + run.train()
      for limit in [250_000, 300_000, 350_000, 400_000] {
        for odd in [0, ranks - 1] {
          let outcome = try start(
            (0..<ranks).map { rank in ["-n", "1"] + (rank == odd ? try limited(limit) + run.train() : plain) }
          ).wait()
          expectOneLine(outcome, rank: odd)
          let lines = ["world: outOfMemory: MPI_Init_thread: MPI needs", "model: outOfMemory: memory: no memory for"]
          #expect(lines.contains { outcome.errors.contains("rank \(odd): \($0)") }, "\(outcome)")
        }
      }
      let simulated = try Launch.run(
        URL(fileURLWithPath: "/usr/bin/env"), limited(250_000) + run.train() + ["--ranks-simulated", "2"], limit: 30)
      expectOneLine(simulated, rank: nil)
    }
  }

  /// The launcher takes two seconds of its own: one to start all ranks, one before it kills them.
  @Test(arguments: [2, 4], [false, true]) func aRankThatDoesNotStartIsMissedByTheDeadline(
    ranks: Int, isFirst: Bool
  ) throws {
    try TinyRun.use { run in
      let others = ["-n", "\(ranks - 1)", try Tool.moeLM.executable().path] + run.train()
      let absent = ["-n", "1", "sleep", "60"]
      let outcome = try start(isFirst ? [absent, others] : [others, absent]).wait()
      let lines = outcome.errorLines(of: "moe-lm")
      #expect(outcome.exitCode == 1 && outcome.left.isEmpty && outcome.seconds < 20, "\(outcome)")
      #expect(lines.count == 1, "\(outcome)")
      #expect(lines.first?.hasPrefix("moe-lm: world: deadlineExceeded: MPI_Init_thread: rank ") == true, "\(outcome)")
    }
  }

  @Test func aModelThatDoesNotFitIsRefused() throws {
    try TinyRun.use { run in
      let large = run.train() + ["--width", "2048", "--expert-width", "4096"]
      let outcome = try Launch.run(
        URL(fileURLWithPath: "/usr/bin/env"), limited(600_000) + large + ["--ranks-simulated", "2"], limit: 30)
      expectOneLine(outcome, rank: nil)
      #expect(outcome.errors.contains("model: outOfMemory: memory: none for"), "\(outcome)")
      for more in [
        ["--width", "1048576", "--blocks", "1048576", "--experts", "4"],
        ["--experts", "1048576", "--blocks", "1048576"],
      ] {
        let outcome = try Tool.moeLM.run(run.train() + more + ["--ranks-simulated", "2"])
        expectOneLine(outcome, rank: 0)
      }
    }
  }

  /// What a step has taken once it need not take again; what it then takes more is refused, and the rank is named.
  /// The limit is what the process has mapped then, to the byte, and holds to the end of the run.
  @Test(arguments: [(0, 2), (1, 2), (0, 4), (3, 4), (0, nil)])
  func oneRankThatLosesItsMemoryInTrainingGoesOnOrIsNamed(at place: (rank: Int, ranks: Int?)) throws {
    for _ in 0..<(Repeats.asked ?? 1) { try loseMemory(place.rank, of: place.ranks) }
  }

  private func loseMemory(_ rank: Int, of ranks: Int?) throws {
    try TinyRun.use { run in
      let arguments =
        run.train(steps: 12) + [
          "--checkpoint", run.path("c"), "--checkpoint-every", "4", "--summary", run.path("s"),
        ]
      let job =
        if let ranks {
          try Tool.moeLM.start([.init(ranks: ranks, arguments: arguments)])
        } else {
          try Tool.moeLM.start(arguments + ["--ranks-simulated", "4"])
        }
      try job.wait(until: { job.output.contains("step 1/") }, "a step")
      let process = try ranks == nil ? job.process : #require(job.process(ofRank: rank))
      let status = try String(contentsOfFile: "/proc/\(process)/status", encoding: .utf8)
      let size = status.split(separator: "\n").first { $0.hasPrefix("VmSize") }!.split(separator: " ")[1]
      let limit = 1024 * (Int(size) ?? 0)
      _ = try Launch.run(
        URL(fileURLWithPath: "/usr/bin/env"), ["prlimit", "--pid", "\(process)", "--as=\(limit):\(limit)"], limit: 10)
      let outcome = try job.wait()
      #expect(outcome.left.isEmpty, "\(outcome)")
      let lines = outcome.errorLines(of: "moe-lm")
      #expect(outcome.exitCode == 0 ? lines.isEmpty : lines.count == 1, "\(outcome)")
      if let line = lines.first { #expect(ranks == nil || line.contains("rank \(rank): "), "\(outcome)") }
      #expect(Set(run.files).isSubset(of: ["c", "s"]), "\(run.files)")
    }
  }

  /// One step of this takes longer than the bounds below on any processor: 50 layers wait for a link, 40 ms in each transfer.
  private func slow(_ run: TinyRun) -> [String] {
    run.train(steps: 5) + [
      "--ranks-simulated", "2", "--blocks", "100", "--link-speed", "1000", "--link-latency", "40000", "--deadline", "1",
    ]
  }

  @Test func aSignalThatNoStepAnswersEndsTheProcessWithinTheBound() throws {
    try TinyRun.use { run in
      let job = try Tool.moeLM.start(slow(run))
      try job.wait(until: { job.output.contains("parameters") }, "the first step")
      let start = ContinuousClock.now
      job.signal(SIGTERM)
      let outcome = try job.wait()
      #expect(outcome.exitCode == 128 + SIGTERM, "\(outcome)")
      #expect(outcome.errors.hasSuffix("signal: no step has answered it for 4 seconds\n"), "\(outcome)")
      #expect(ContinuousClock.now - start < .seconds(20))
    }
  }

  @Test func aSecondSignalEndsTheProcessAtOnce() throws {
    try TinyRun.use { run in
      let job = try Tool.moeLM.start(slow(run))
      try job.wait(until: { job.output.contains("parameters") }, "the first step")
      job.signal(SIGTERM)
      Thread.sleep(forTimeInterval: 0.2)
      #expect(job.isRunning)
      let start = ContinuousClock.now
      job.signal(SIGINT)
      let outcome = try job.wait()
      #expect(outcome.exitCode == 128 + SIGINT && outcome.errors.isEmpty, "\(outcome)")
      #expect(ContinuousClock.now - start < .seconds(20))
    }
  }
}
