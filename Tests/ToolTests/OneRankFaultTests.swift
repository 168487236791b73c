import Foundation
import LaunchSupport
import Testing

/// One rank alone meets a full disk, a folder that cannot be written in, or a FIFO: at the start, in training, at the end.
///
/// The rank gets a mount namespace of its own, with a small file system where its files go. Rank 0 writes for all: what
/// happens to it is named by all at once; what happens to the disk of another rank is nothing to the run. Simulated ranks
/// share one process, so there the one rank is rank 0.
@Suite(.serialized)
struct OneRankFaultTests {
  enum Fault: String, CaseIterable {
    case fullAtStart, fullInTraining, fullAtEnd, readOnlyAtStart, readOnlyInTraining, readOnlyAtEnd, fifoAtStart
    case fifoInTraining, fifoStuckInTraining, fifoAtEnd

    /// What the rank does before it becomes the tool: `$F` is the small file system.
    var script: String {
      switch self {
      case .fullAtStart: "head -c 1m /dev/zero >$F/fill 2>/dev/null; rm -f $F/none"
      case .fullInTraining: "head -c 390k /dev/zero >$F/fill"
      case .fullAtEnd: "head -c 1m /dev/zero >$F/fill 2>/dev/null"
      case .readOnlyAtStart: "mount -o remount,ro $F"
      case .readOnlyInTraining: Self.remount(after: "test -s $F/c")
      case .readOnlyAtEnd: Self.remount(after: "test -s $M")
      case .fifoAtStart: "mkfifo $F/x"
      case .fifoInTraining: "mkfifo $F/x; head -n 2 <$F/x >/dev/null & sleep 0.2"
      case .fifoStuckInTraining: "mkfifo $F/x; sleep 60 <$F/x & head -c 65000 /dev/zero >$F/x"
      case .fifoAtEnd: "mkfifo $F/x"
      }
    }

    /// Options that lead to the file system, `F`; `M` is a file outside it.
    var options: [String] {
      switch self {
      case .fullAtStart, .readOnlyAtStart, .fullInTraining, .fifoInTraining, .fifoStuckInTraining:
        ["--metrics", "F/x"]
      case .fullAtEnd, .readOnlyAtEnd: ["--metrics", "M", "--checkpoint", "F/c"]
      case .readOnlyInTraining: ["--checkpoint", "F/c", "--checkpoint-every", "1"]
      case .fifoAtStart: ["--data", "F/x"]
      case .fifoAtEnd: ["--summary", "F/x"]
      }
    }

    var steps: Int {
      switch self {
      case .fullInTraining, .readOnlyInTraining, .fifoInTraining, .fifoStuckInTraining: 1_000_000
      case .readOnlyAtEnd: 40
      default: 3
      }
    }

    /// What the only line says.
    var cause: String {
      switch self {
      case .fullAtStart: "metrics: F/x cannot be written: No space left on device"
      case .fullInTraining: "metrics: F/x cannot be written: No space left on device"
      case .fullAtEnd: "checkpoint: F/c cannot be written: No space left on device"
      case .readOnlyAtStart: "metrics: F/x cannot be written: Read-only file system"
      case .readOnlyInTraining, .readOnlyAtEnd: "checkpoint: F/c cannot be written: Read-only file system"
      case .fifoAtStart: "data: F/x is a FIFO; only a regular file can be read"
      case .fifoInTraining: "metrics: F/x cannot be written: Broken pipe"
      case .fifoStuckInTraining: "metrics: F/x has a reader that has taken nothing for"
      case .fifoAtEnd: "summary: F/x cannot be opened: No such device or address"
      }
    }

    private static func remount(after condition: String) -> String {
      "(until \(condition); do sleep 0.02; done; until mount -o remount,ro $F 2>/dev/null; do :; done) >/dev/null 2>&1 &"
    }
  }

  private func run(_ fault: Fault, ranks: Int?, on odd: Int, _ run: TinyRun) throws -> Outcome {
    let folder = run.path("small")
    try? FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: false)
    let tool = try Tool.moeLM.executable().path
    let script = """
      F=\(folder) M=\(run.path("m"))
      mount -t tmpfs -o size=400k none $F || exit 77
      \(fault.script)
      exec "$@"
      """
    let options = fault.options.map {
      $0 == "M" ? run.path("m") : $0.hasPrefix("F/") ? folder + $0.dropFirst() : $0
    }
    let arguments = run.train(steps: odd == 0 ? fault.steps : 3) + options
    let alone = ["unshare", "-m", "bash", "-c", script, "bash", tool] + arguments
    guard let ranks else {
      return try Launch.run(URL(fileURLWithPath: "/usr/bin/env"), alone + ["--ranks-simulated", "4"], limit: 60)
    }
    let plain = [tool] + (odd == 0 ? arguments : run.train(steps: 3))
    var groups = [["-n", "\(ranks - 1)"] + plain]
    groups.insert(["-n", "1"] + alone, at: odd == 0 ? 0 : 1)
    return try Launch.run(Programs.mpirun(), Programs.oversubscribe + groups.joined(separator: [":"]), limit: 60)
  }

  @Test(arguments: Fault.allCases, [nil] + Repeats.rankCounts.map { $0 })
  func whatRankZeroMeetsEndsAllInOneLine(fault: Fault, ranks: Int?) throws {
    let isRace = fault.steps > 3
    for _ in 0..<(isRace ? Repeats.asked ?? 1 : 1) {
      try TinyRun.use { run in
        let outcome = try self.run(fault, ranks: ranks, on: 0, run)
        guard outcome.exitCode != 77, !outcome.errors.contains("unshare failed") else { return }
        let lines = outcome.errorLines(of: "moe-lm")
        let cause = "moe-lm: rank 0: file: " + fault.cause.replacing("F/", with: run.path("small") + "/")
        #expect(outcome.exitCode == 1 && lines.count == 1, "\(fault): \(outcome)")
        #expect(isRace || outcome.seconds < 20, "the deadline, and a busy machine: \(outcome)")
        #expect(lines.first?.hasPrefix(cause) == true, "\(fault): \(outcome)")
        // Reader and remounter of the fault itself may be left.
        #expect(!outcome.left.contains { $0.contains("moe-lm") && !$0.contains("bash") }, "\(outcome)")
        #expect(Set(run.files).isSubset(of: ["small", "m"]), "\(run.files)")
      }
    }
  }

  @Test(arguments: [Fault.fullAtStart, .readOnlyAtStart, .fifoAtStart], Repeats.rankCounts)
  func whatTheDiskOfAnotherRankDoesIsNothingToTheRun(fault: Fault, ranks: Int) throws {
    try TinyRun.use { run in
      let outcome = try self.run(fault, ranks: ranks, on: ranks - 1, run)
      guard outcome.exitCode != 77, !outcome.errors.contains("unshare failed") else { return }
      #expect(outcome.exitCode == 0 && outcome.errors.isEmpty, "\(outcome)")
    }
  }
}
