import Foundation
import LaunchSupport
import Testing

@Suite(.serialized)
struct LaunchTests {
  @Test(arguments: [1, 2]) func trainingEndsWellUnderMPI(ranks: Int) throws {
    let outcome = try TinyRun.use { run in try Tool.moeLM.run(ranks: ranks, run.train()) }
    #expect(outcome.exitCode == 0, "\(outcome)")
    #expect(outcome.outputLines.contains { $0.hasPrefix("2 steps, held-out") }, "\(outcome)")
    #expect(outcome.errors.isEmpty && outcome.left.isEmpty, "\(outcome)")
  }

  @Test func trainingEndsWellOnSimulatedRanks() throws {
    let outcome = try TinyRun.use { run in try Tool.moeLM.run(run.train() + ["--ranks-simulated", "3"]) }
    #expect(outcome.exitCode == 0 && outcome.errors.isEmpty, "\(outcome)")
  }

  @Test func aProgramThatDoesNotEndIsEndedWithAllItsProcesses() throws {
    try TinyRun.use { run in
      let job = try Tool.moeLM.start([.init(ranks: 2, arguments: run.train(steps: 1_000_000))], limit: 3)
      try job.wait(until: { job.output.contains("step 1/") }, "a step")
      #expect(!(0..<2).map { job.process(ofRank: $0) }.contains(nil))
      #expect(throws: LaunchFailure.self) { try job.wait() }
      #expect((0..<2).map { job.process(ofRank: $0) } == [nil, nil])
    }
  }

  @Test func whatALaunchWritesToARelativePathGoesWithIt() throws {
    let shell = URL(fileURLWithPath: "/bin/sh")
    let alone = try Launch.run(shell, ["-c", "pwd; echo >left"], limit: 10)
    let ranks = try Launch.run(
      Programs.mpirun(), Programs.oversubscribe + ["-n", "2", shell.path, "-c", "pwd; echo >left"], limit: 20)
    let folders = (alone.outputLines + ranks.outputLines).map(String.init)
    #expect(folders.count == 3 && alone.exitCode == 0 && ranks.exitCode == 0, "\(alone) \(ranks)")
    for folder in folders {
      #expect(folder.hasPrefix("/") && !FileManager.default.fileExists(atPath: folder), "\(folder)")
    }
  }
}
