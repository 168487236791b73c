import Foundation
import LaunchSupport
import Testing

/// Files that cannot be read or written: one line at once, from the rank that uses them, and nothing half left.
@Suite(.serialized)
struct FileTests {
  /// Under MPI and simulated.
  private func runs(_ arguments: [String]) throws -> [Outcome] {
    try Repeats.rankCounts.map { try Tool.moeLM.run(ranks: $0, arguments) } + [
      try Tool.moeLM.run(arguments + ["--ranks-simulated", "4"])
    ]
  }

  private func expectOneLine(
    _ outcome: Outcome, of tool: Tool = .moeLM, _ line: String, sourceLocation: SourceLocation = #_sourceLocation
  ) {
    let lines = outcome.errorLines(of: tool.rawValue)
    #expect(outcome.exitCode == 1 && outcome.left.isEmpty, "\(outcome)", sourceLocation: sourceLocation)
    #expect(lines.count == 1 && lines.first?.contains(line) == true, "\(outcome)", sourceLocation: sourceLocation)
    #expect(
      outcome.seconds < 20, "the deadline of 5 s, and room for a busy machine: \(outcome)",
      sourceLocation: sourceLocation)
  }

  /// At the start, in the first step, at a checkpoint in training, and at the end.
  @Test(arguments: ["metrics", "checkpoint", "summary"]) func aFullDiskIsNamedWhereverItIsMet(option: String) throws {
    try TinyRun.use { run in
      let every = option == "checkpoint" ? ["--checkpoint-every", "1"] : []
      for outcome in try runs(run.train(steps: 3) + every + ["--\(option)", "/dev/full"]) {
        expectOneLine(outcome, "rank 0: file: \(option): /dev/full cannot be written: No space left on device")
      }
      #expect(run.files.isEmpty, "\(run.files)")
    }
  }

  @Test func aFullDiskUnderStandardOutputIsAnError() throws {
    try TinyRun.use { run in
      let full = ["-c", "exec \"$0\" \"$@\" >/dev/full"]
      let codec = ["bench", "codec", "--rows", "8", "--hidden", "8", "--iterations", "1"]
      for (tool, arguments) in [
        (Tool.xpoint, codec), (.xpoint, ["doctor", "--json"]), (.xpoint, ["--help"]), (.moeLM, ["train", "--help"]),
        (.moeLM, run.train() + ["--ranks-simulated", "2"]),
      ] {
        let outcome = try Launch.run(
          URL(fileURLWithPath: "/bin/sh"), full + [tool.executable().path] + arguments, limit: 30)
        expectOneLine(outcome, of: tool, "file: standard output: it cannot be written")
      }
      let odd = ["-n", "1", "/bin/sh"] + full + [try Tool.moeLM.executable().path] + run.train()
      let others = [":", "-n", "3", try Tool.moeLM.executable().path] + run.train()
      let outcome = try Launch.run(Programs.mpirun(), Programs.oversubscribe + odd + others, limit: 30)
      expectOneLine(outcome, "rank 0: file: standard output: it cannot be written")
    }
  }

  /// /proc is a folder in which root cannot write, either.
  @Test(arguments: ["metrics", "checkpoint", "summary"])
  func aFolderThatCannotBeWrittenInIsNamed(option: String) throws {
    try TinyRun.use { run in
      for folder in ["/proc/self", run.path("none")] {
        for outcome in try runs(run.train() + ["--\(option)", "\(folder)/out"]) {
          expectOneLine(outcome, "rank 0: file: \(option): \(folder)/out cannot be ")
        }
      }
      #expect(run.files.isEmpty, "\(run.files)")
    }
  }

  /// A small file system that fills up while a checkpoint is written: the one before it stays, and nothing half beside it.
  @Test func aCheckpointThatNoLongerFitsLeavesTheOneBefore() throws {
    try TinyRun.use { run in
      let folder = run.path("small")
      try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: false)
      // A namespace of its own, which ends with the process; two checkpoints of 160 KB fit.
      let script = """
        mount -t tmpfs -o size=400k none \(folder) || exit 77
        "$@" --steps 2; echo "code $?"; cksum \(folder)/c; fill=\(folder)/fill; head -c 400k /dev/zero >$fill 2>/dev/null
        "$@" --steps 4; echo "code $?"; cksum \(folder)/c; ls -A \(folder)
        """
      let tool = try Tool.moeLM.executable().path
      let arguments =
        ["train"] + run.options + ["--checkpoint", "\(folder)/c", "--checkpoint-every", "1", "--ranks-simulated", "2"]
      let outcome = try Launch.run(
        URL(fileURLWithPath: "/usr/bin/env"), ["unshare", "-m", "bash", "-c", script, "bash", tool] + arguments,
        limit: 60)
      guard outcome.exitCode != 77, !outcome.errors.contains("unshare failed") else {
        print("left out: mounting is not allowed here")
        return
      }
      let lines = outcome.outputLines.filter { $0.hasPrefix("code") || $0.hasSuffix("/c") }
      #expect(lines.count == 4 && lines.first == "code 0" && lines[2] == "code 1", "\(outcome)")
      #expect(lines.count == 4 && lines[1] == lines[3], "\(outcome)")
      #expect(outcome.errorLines(of: "moe-lm").count == 1, "\(outcome)")
      #expect(outcome.errors.contains("No space left on device"), "\(outcome)")
      #expect(outcome.outputLines.suffix(2) == ["c", "fill"], "\(outcome)")
    }
  }

  @Test func aFIFOIsRefusedByNameBeforeAnybodyWaits() throws {
    try TinyRun.use { run in
      let fifo = run.path("fifo")
      #expect(mkfifo(fifo, 0o600) == 0)
      for (arguments, option) in [
        (run.train() + ["--data", fifo], "data"), (run.train() + ["--checkpoint", fifo, "--resume"], "checkpoint"),
        (["eval", "--checkpoint", fifo, "--deadline", "5"], "checkpoint"),
      ] {
        for outcome in try runs(arguments) {
          expectOneLine(outcome, "rank 0: file: \(option): \(fifo) is a FIFO; only a regular file can be read")
        }
      }
      for outcome in try runs(run.train() + ["--data", "/dev/zero"]) {
        expectOneLine(outcome, "rank 0: file: data: /dev/zero is a character device")
      }
      for outcome in try runs(run.train() + ["--metrics", fifo]) {
        expectOneLine(outcome, "rank 0: file: metrics: \(fifo) cannot be opened: No such device or address")
      }
      for input in [fifo, "/dev/zero"] {
        let outcome = try Tool.xpoint.run(["roundtrip", "--input", input, "--output", run.path("Y.npy")])
        expectOneLine(outcome, of: .xpoint, "file: --input: \(input) is a")
      }
      #expect(run.files == ["fifo"])
    }
  }

  @Test func devicesAndLinksStayWhatTheyAre() throws {
    try TinyRun.use { run in
      #expect(symlink("target.jsonl", run.path("link")) == 0)
      let outcome = try Tool.moeLM.run(
        run.train() + ["--ranks-simulated", "2", "--metrics", run.path("link"), "--summary", "/dev/null"])
      #expect(outcome.exitCode == 0, "\(outcome)")
      #expect(run.files == ["link", "target.jsonl"])
      let type = try FileManager.default.attributesOfItem(atPath: run.path("link"))[.type] as? FileAttributeType
      #expect(type == .typeSymbolicLink)
      #expect(try String(contentsOfFile: run.path("target.jsonl"), encoding: .utf8).split(separator: "\n").count == 2)
      let null = try FileManager.default.attributesOfItem(atPath: "/dev/null")[.type] as? FileAttributeType
      #expect(null == .typeCharacterSpecial)
      // Both on standard output, in their order.
      let both = try Tool.moeLM.run(
        run.train() + ["--ranks-simulated", "2", "--metrics", "/dev/stdout", "--summary", "/dev/stdout"])
      #expect(both.outputLines.filter { $0.hasPrefix("{\"bitsPerByte\"") }.count == 2, "\(both)")
      #expect(both.output.contains("\"valBitsPerByte\" :"), "\(both)")
    }
  }

  /// Killed while it writes one checkpoint after the other.
  @Test func aKilledWriterLeavesNoHalfFile() throws {
    try TinyRun.use { run in
      for _ in 0..<5 {
        let job = try Tool.moeLM.start(
          run.train(steps: 1_000_000) + [
            "--ranks-simulated", "2", "--checkpoint", run.path("c"), "--checkpoint-every", "1",
          ])
        try job.wait(until: { run.files.contains("c") && job.output.contains("step 1/") }, "a checkpoint")
        Thread.sleep(forTimeInterval: Double.random(in: 0..<0.1))
        job.signal(SIGKILL)
        _ = try job.wait()
        #expect(run.files == ["c"])
        let measured = try Tool.moeLM.run(
          [
            "eval", "--checkpoint", run.path("c"), "--data", run.path("text.txt"), "--batch", "8", "--eval-windows",
            "2",
          ])
        #expect(measured.exitCode == 0, "\(measured)")
      }
    }
  }
}
