import Foundation
import LaunchSupport
import Testing

/// What `moe-lm train --trace` writes.
@Suite(.serialized)
struct TraceTests {
  private struct File: Decodable {
    let traceEvents: [Event]
  }

  private struct Event: Decodable {
    let name: String
    let ph: String
    let pid: Int
    let ts: Double?
    let dur: Double?
    var end: Double { (ts ?? 0) + (dur ?? 0) }
  }

  @Test(arguments: [false, true]) func phasesOfEveryRankFillItsSteps(mpi: Bool) throws {
    try TinyRun.use { run in
      let train = run.train(steps: 3) + ["--trace", run.path("trace.json")]
      let outcome =
        mpi ? try Tool.moeLM.run(ranks: 2, train) : try Tool.moeLM.run(train + ["--ranks-simulated", "2"])
      #expect(outcome.exitCode == 0, "\(outcome)")
      let data = try Data(contentsOf: URL(fileURLWithPath: run.path("trace.json")))
      let events = try JSONDecoder().decode(File.self, from: data).traceEvents
      #expect(Set(events.map(\.pid)) == [0, 1] && events.count { $0.ph == "M" } == 2)
      for rank in 0..<2 {
        let spans = events.filter { $0.pid == rank && $0.ph == "X" }
        let steps = spans.filter { $0.name.hasPrefix("step ") }
        let phases = spans.filter { !$0.name.hasPrefix("step ") }
        #expect(steps.map(\.name) == ["step 1", "step 2", "step 3"])
        let names = Set(phases.map(\.name))
        #expect(names.isSuperset(of: ["block1.dispatch", "block1.combineBackward", "block1.experts", "optimiser"]))
        // One after the other, and nothing of a step is in none.
        for (phase, next) in zip(phases, phases.dropFirst()) { #expect(phase.end <= next.ts! + 0.01) }
        for step in steps {
          let inside = phases.filter { $0.ts! >= step.ts! - 0.01 && $0.end <= step.end + 0.01 }
          #expect(abs(inside.reduce(0) { $0 + $1.dur! } - step.dur!) < 1)
        }
      }
    }
  }

  @Test func aFileThatCannotBeWrittenIsRefusedBeforeTheFirstStep() throws {
    try TinyRun.use { run in
      let outcome = try Tool.moeLM.run(run.train() + ["--trace", run.path("no/such/folder.json")])
      #expect(outcome.exitCode != 0 && outcome.errors.contains("trace"), "\(outcome)")
    }
  }
}
