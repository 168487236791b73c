import Glibc
import MPI

// RankProgram <scenario> [arguments]   under mpirun: runs one scenario; `ok <scenario>` on rank 0 and exit code 0, or one
//                                      line on stderr and another exit code.
// RankProgram --list                   one line per scenario: name, rank counts, how it ends, and whether this build can
//                                      run it (`runs`) or not (`needs a release build`).

/// One line on stderr, written at once so that lines of several ranks do not mix.
func report(_ line: String) {
  let bytes = Array((line + "\n").utf8)
  _ = bytes.withUnsafeBytes { write(2, $0.baseAddress, $0.count) }
}

func main() -> Int32 {
  let arguments = Array(CommandLine.arguments.dropFirst())
  guard let name = arguments.first else {
    report("RankProgram: name a scenario; `RankProgram --list` shows all")
    return 2
  }
  if name == "--list" {
    for scenario in scenarios {
      let build = scenario.isRunnable ? "runs" : "needs a release build"
      print(scenario.name, scenario.ranks, scenario.end, build, separator: "\t")
    }
    return 0
  }
  guard let scenario = scenarios.first(where: { $0.name == name }) else {
    report("RankProgram: no scenario `\(name)`; `RankProgram --list` shows all")
    return 2
  }
  guard scenario.isRunnable else {
    report("RankProgram: \(name): needs a release build")
    return 2
  }
  return run(scenario, Array(arguments.dropFirst()))
}

func run(_ scenario: Scenario, _ arguments: [String]) -> Int32 {
  do {
    try MPIEnvironment.initialize()
    let ranks = Ranks(world: try Communicator.world(), arguments: arguments)
    do {
      try ranks.expect(
        scenario.allows(ranks.count), "runs on \(scenario.ranks) ranks, not on \(ranks.count)")
      try scenario.run(ranks)
      try ranks.world.barrier()
      if ranks.rank == 0 { print("ok \(scenario.name)") }
      try MPIEnvironment.finalize()
      return 0
    } catch {
      // The other ranks may wait for this one: finalising would hang.
      report("RankProgram: \(scenario.name): rank \(ranks.rank): \(error)")
      ranks.world.abort(exitCode: 1)
    }
  } catch {
    report("RankProgram: \(scenario.name): \(error)")
    return 1
  }
}

exit(main())
