import Foundation
import LaunchSupport
import Testing

/// Whatever goes wrong, one line says what and on which rank, no rank waits, and nothing is left.
@Suite(.serialized)
struct OneLineTests {
  private func expectOneLine(
    _ outcome: Outcome, of tool: Tool = .moeLM, _ line: String, code: Int32 = 1,
    sourceLocation: SourceLocation = #_sourceLocation
  ) {
    let lines = outcome.errorLines(of: tool.rawValue)
    #expect(outcome.exitCode == code && outcome.left.isEmpty, "\(outcome)", sourceLocation: sourceLocation)
    #expect(lines.count == 1, "\(outcome)", sourceLocation: sourceLocation)
    #expect(lines.first?.contains(line) == true, "\(outcome)", sourceLocation: sourceLocation)
  }

  enum Agreed: String, CaseIterable {
    case option = "--top-k 9"
    case data = "--data /nonexistent"
    case notANumber = "--learning-rate 1e30"

    var line: String {
      switch self {
      case .option: "rank 0: options: invalidArgument: top-k: 9 of 4 experts"
      case .data: "rank 0: file: data: /nonexistent cannot be opened: No such file or directory"
      case .notANumber: "rank 0: route: nonFinite: logits: token 0 has logit"
      }
    }
  }

  @Test(arguments: Agreed.allCases)
  func whatAllRanksKnowIsPrintedBeforeAnyLeaves(_ agreed: Agreed) throws {
    let more = agreed.rawValue.split(separator: " ").map(String.init)
    try TinyRun.use { run in
      for _ in 0..<(Repeats.asked ?? 2) {
        expectOneLine(try Tool.moeLM.run(ranks: 4, run.train(steps: 20) + more), agreed.line)
      }
      let simulated = try Tool.moeLM.run(run.train(steps: 20) + more + ["--ranks-simulated", "4"])
      #expect(simulated.exitCode == 1 && simulated.errorLines.count == 1, "\(simulated)")
    }
  }

  /// The launcher kills rank 0 a second after another rank has left. So rank 0 is later than that here: it writes to a pipe
  /// that is full, and whose reader begins after three seconds.
  @Test(arguments: [Agreed.option, .notANumber])
  func noRankLeavesBeforeRankZeroHasPrinted(_ agreed: Agreed) throws {
    let more = agreed.rawValue.split(separator: " ").map(String.init)
    try TinyRun.use { run in
      let script = """
        mkfifo full && exec 3<>full && head -c 65536 /dev/zero >&3
        setsid sh -c 'sleep 3; exec tail -c +65537 <full' >\(run.path("printed")) 2>/dev/null 3>&- &
        exec "$0" "$@" 2>&3 3>&-
        """
      let (tool, arguments) = (try Tool.moeLM.executable().path, run.train(steps: 20) + more)
      let late = ["-n", "1", "bash", "-c", script, tool] + arguments
      let outcome = try Launch.run(
        Programs.mpirun(), Programs.oversubscribe + late + [":", "-n", "2", tool] + arguments, limit: 30)
      #expect(outcome.exitCode == 1 && outcome.left.isEmpty, "\(outcome)")
      #expect(outcome.errorLines(of: "moe-lm").isEmpty, "\(outcome)")
      let printed = try String(contentsOfFile: run.path("printed"), encoding: .utf8).split(separator: "\n")
      #expect(printed.count == 1 && printed[0].contains(agreed.line), "\(printed), \(outcome)")
    }
  }

  @Test(arguments: [2, 4])
  func aMistakeOnOneCommandLineIsPrintedOnceWithItsRank(ranks: Int) throws {
    try TinyRun.use { run in
      for _ in 0..<(Repeats.asked ?? 2) / 2 {
        expectOneLine(
          try Tool.moeLM.run(ranks: ranks, run.train(), onRank: ranks - 1, ["--nonsense"]),
          "rank \(ranks - 1): arguments: invalidArgument: command line: Unknown option '--nonsense' (see moe-lm train --help)",
          code: 64)
      }
      expectOneLine(
        try Tool.moeLM.run(ranks: ranks, run.train(), onRank: 1, ["--steps", "many"]), "rank 1: arguments", code: 64)
      expectOneLine(
        try Tool.moeLM.run(ranks: ranks, run.train(), onRank: 1, ["--help"]),
        "moe-lm help on rank 1, moe-lm train on rank 0", code: 64)
      let bench = ["bench", "exchange", "--tokens", "16", "--hidden", "8", "--iterations", "1", "--warmup", "1"]
      expectOneLine(
        try Tool.xpoint.run(ranks: ranks, bench, onRank: 1, ["--nonsense"]), of: .xpoint, "rank 1: arguments", code: 64)
      expectOneLine(
        try Tool.xpoint.run(ranks: ranks, bench, onRank: 1, ["--tokens", "32"]), of: .xpoint,
        "rank 1: options: ranksDisagree: tokens: 32 on rank 1, 16 on rank 0")
      expectOneLine(
        try Tool.xpoint.run(ranks: ranks, bench + ["--json", "/nonexistent/out.json"]), of: .xpoint,
        "rank 0: file: --json")
    }
  }

  @Test func helpAndVersionArePrintedOnce() throws {
    for (tool, arguments, text) in [
      (Tool.moeLM, ["--help"], "Trains a byte-level"), (.moeLM, ["train", "--help"], "Trains a model."),
      (.moeLM, ["--version"], "0."), (.xpoint, ["bench", "exchange", "--help"], "Times an exchange of rows"),
      (.xpoint, ["--version"], "0."),
    ] {
      let outcome = try tool.run(ranks: 3, arguments)
      #expect(outcome.exitCode == 0 && outcome.errors.isEmpty, "\(outcome)")
      #expect(outcome.output.components(separatedBy: text).count == 2, "\(outcome)")
    }
  }

  /// Rank 0 alone writes; from some step on the disk is full for it. Both ranks learn of it within the step.
  @Test func aDiskThatFillsUpIsNamedByEveryRankAtOnce() throws {
    try TinyRun.use { run in
      let arguments = run.train(steps: 1_000_000) + ["--deadline", "30"]
      // A file that grows past the limit set below is then an error, no signal.
      let ignoring = ["bash", "-c", "trap '' XFSZ; exec \"$0\" \"$@\"", try Tool.moeLM.executable().path]
      let job = try Launch(
        Programs.mpirun(),
        Programs.oversubscribe + ["-n", "1"] + ignoring + arguments + ["--metrics", run.path("metrics.jsonl")]
          + [":", "-n", "1", Tool.moeLM.executable().path] + arguments, limit: 25)
      try job.wait(until: { job.output.contains("step 1/") }, "a step")
      let writer = try #require(job.process(ofRank: 0))
      let limited = try Launch.run(
        URL(fileURLWithPath: "/usr/bin/env"), ["prlimit", "--pid", "\(writer)", "--fsize=4000:4000"], limit: 10)
      #expect(limited.exitCode == 0, "\(limited)")
      expectOneLine(
        try job.wait(), "rank 0: file: metrics: \(run.path("metrics.jsonl")) cannot be written: File too large")
    }
  }

  /// A rank that is stopped in the middle of training; mpirun wakes it when the others end the job.
  @Test(arguments: [2, 4], [0, 1])
  func aStoppedRankIsNamedInTheOnlyLineByTheDeadline(ranks: Int, stopped: Int) throws {
    try TinyRun.use { run in
      let arguments = run.train(steps: 1_000_000) + ["--deadline", "2"]
      let job = try Tool.moeLM.start([.init(ranks: ranks, arguments: arguments)])
      try job.wait(until: { job.output.contains("step 1/") }, "a step")
      kill(try #require(job.process(ofRank: stopped)), SIGSTOP)
      let start = ContinuousClock.now
      let outcome = try job.wait()
      expectOneLine(outcome, "rank \(stopped): ")
      #expect(outcome.errors.contains("rank \(stopped) did not "), "\(outcome)")
      #expect(ContinuousClock.now - start < .seconds(20), "the deadline of 2 s and the end: \(outcome)")
    }
  }
}
