import Foundation
import LaunchSupport
import Testing

@Suite(.serialized)
struct PlainTransportTests {
  /// What training came to, step by step: the numbers of its metrics that do not depend on time or traffic.
  private func losses(_ outcome: Outcome, _ metrics: String) throws -> [[Double?]] {
    #expect(outcome.exitCode == 0, "\(outcome)")
    return try String(contentsOfFile: metrics, encoding: .utf8).split(separator: "\n").map { line in
      let entry = try #require(try JSONSerialization.jsonObject(with: Data(line.utf8)) as? [String: Any])
      return ["bitsPerByte", "valBitsPerByte", "gradientNorm"].map { entry[$0] as? Double }
    }
  }

  @Test func plainTrainsTheSameBitsAsFP32UnderMPIAndSimulated() throws {
    try TinyRun.use { run in
      let off = run.train(steps: 6) + ["--top-k", "2", "--eval-every", "3", "--compression", "off", "--wire", "fp32"]
      let plain = off + ["--transport", "plain"]
      func metrics(_ name: String) -> [String] { ["--metrics", run.path(name)] }
      let simulated = ["--ranks-simulated", "4"]
      let expected = try losses(Tool.moeLM.run(ranks: 4, off + metrics("off")), run.path("off"))
      #expect(expected.count == 6 && expected.allSatisfy { $0[0] != nil } && expected[5][1] != nil)
      #expect(try losses(Tool.moeLM.run(ranks: 4, plain + metrics("mpi")), run.path("mpi")) == expected)
      #expect(try losses(Tool.moeLM.run(plain + simulated + metrics("threads")), run.path("threads")) == expected)
    }
  }

  /// MPI_Alltoallv alone would wait for ever.
  @Test func aStoppedRankEndsPlainTrainingByTheDeadline() throws {
    try TinyRun.use { run in
      let job = try Tool.moeLM.start([
        .init(ranks: 3, arguments: run.train(steps: 1_000_000) + ["--transport", "plain"])
      ])
      try job.wait(until: { job.output.contains("step 1/") }, "a step")
      kill(try #require(job.process(ofRank: 1)), SIGSTOP)
      let start = ContinuousClock.now
      let outcome = try job.wait()
      let lines = outcome.errorLines(of: "moe-lm")
      #expect(outcome.exitCode == 1 && outcome.left.isEmpty && lines.count == 1, "\(outcome)")
      #expect(lines.first?.contains("deadlineExceeded: ") == true, "\(outcome)")
      #expect(ContinuousClock.now - start < .seconds(30), "the deadline of 5 s and the end: \(outcome)")
    }
  }

  @Test func whatPlainCannotDoIsOneLine() throws {
    try TinyRun.use { run in
      let outcome = try Tool.moeLM.run(ranks: 2, run.train() + ["--transport", "plain", "--copies", "rank"])
      #expect(outcome.exitCode == 1, "\(outcome)")
      #expect(
        outcome.errorLines(of: "moe-lm") == [
          "moe-lm: rank 0: options: invalidArgument: transport: plain sends fp32 rows, one for each expert: "
            + "it cannot do copies rank, only expert"
        ], "\(outcome)")
    }
  }
}
