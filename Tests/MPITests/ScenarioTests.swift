import Foundation
import LaunchSupport
import Testing

/// Everything that needs real ranks, under mpirun, one launch after the other.
@Suite(.serialized)
struct ScenarioTests {
  @Test func mpirunAndTheRankProgramAreThere() throws {
    _ = try Programs.mpirun()
    let names = try LaunchCase.list().map(\.scenario)
    #expect(names.count > 1, "RankProgram --list names no scenarios")
    #expect(Set(names).count == names.count, "two scenarios share a name")
  }

  private static let holding = LaunchCase.all(ending: "ok")
  private static let dying = LaunchCase.all(ending: "dies")

  /// What a build for debugging cannot run is left out by name; a program that is given runs all.
  @Test func everyScenarioIsLaunchedOnAllItsRankCounts() throws {
    let lines = try LaunchCase.list().filter { $0.runs || RankProgram.isGiven }
    let listed = lines.flatMap { line in line.ranks.map { LaunchCase(scenario: line.scenario, ranks: $0) } }
    #expect(lines.allSatisfy { !$0.ranks.isEmpty })
    #expect(Set(listed) == Set(Self.holding + Self.dying))
  }

  @Test(arguments: ScenarioTests.holding)
  func scenarioHolds(_ launch: LaunchCase) throws {
    let outcome = try RankProgram.launch(launch.scenario, ranks: launch.ranks)
    #expect(outcome.exitCode == 0, "\(outcome)")
    #expect(outcome.lines.contains("ok \(launch.scenario)"), "\(outcome)")
  }

  /// The last rank goes away: a line names it, mpirun ends by itself with an error, no shared memory stays behind.
  @Test(arguments: ScenarioTests.dying)
  func lostRankIsNamedAndNothingIsLeftBehind(_ launch: LaunchCase) throws {
    let memory = URL(fileURLWithPath: "/dev/shm").appendingPathComponent("crosspoint-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: memory, withIntermediateDirectories: false)
    defer { try? FileManager.default.removeItem(at: memory) }

    let outcome = try RankProgram.launch(launch.scenario, ranks: launch.ranks, sharedMemory: memory)
    #expect(outcome.exitCode != 0, "\(outcome)")
    #expect(!outcome.errors.contains("time limit"), "\(outcome)")
    #expect(!outcome.lines.contains("ok \(launch.scenario)"), "\(outcome)")
    #expect(outcome.lines.contains { $0.contains("rank \(launch.ranks - 1)") }, "\(outcome)")
    let left = try FileManager.default.contentsOfDirectory(atPath: memory.path)
    #expect(left.isEmpty, "left in \(memory.path): \(left)")
  }

  @Test func unknownScenarioIsRefusedInOneLine() throws {
    let outcome = try RankProgram.run(["no-such-thing"])
    #expect(outcome.exitCode == 2)
    #expect(outcome.lines == ["RankProgram: no scenario `no-such-thing`; `RankProgram --list` shows all"])
  }

  @Test func wrongNumberOfRanksIsRefused() throws {
    let outcome = try RankProgram.launch("fabric-deadline", ranks: 1)
    #expect(outcome.exitCode != 0)
    #expect(outcome.errors.contains("runs on 2,3,4 ranks, not on 1"), "\(outcome)")
  }
}
