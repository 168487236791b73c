/// All scenarios. A new one: a function `(Ranks) throws -> Void` in a file of its own, and a line here.
let scenarios = namedScenarios + exchangeFaultScenarios

private let namedScenarios: [Scenario] = [
  Scenario("mpi-environment", ranks: "1,2", mpiEnvironment),
  Scenario("mpi-communicators", ranks: "1,2,3,4", mpiCommunicators),
  Scenario("mpi-collectives", ranks: "1,2,3,4", mpiCollectives),
  Scenario("mpi-messages", ranks: "1,2,3,4", mpiMessages),
  Scenario("mpi-windows", ranks: "1,2,4", mpiWindows),
  Scenario("mpi-errors", ranks: "1,2,3", mpiErrors),
  Scenario("fabric-exchange", ranks: "1,2,3,4", fabricExchange),
  Scenario("fabric-pieces", ranks: "1,2,3,4", fabricPieces),
  Scenario("fabric-split", ranks: "1,2,3,4", fabricSplit),
  Scenario("fabric-world", ranks: "1,3", fabricWorld),
  Scenario("fabric-allreduce", ranks: "1,2,3,4", fabricAllreduce),
  Scenario("fabric-arrival", ranks: "2,3,4", fabricArrival),
  Scenario("fabric-truncated", ranks: "2,3,4", fabricTruncated),
  Scenario("fabric-deadline", ranks: "2,3,4", fabricDeadline),
  Scenario("fabric-late", ranks: "2,3,4", fabricLate),
  Scenario("fabric-stopped", ranks: "2,3", end: .dies, fabricStopped),
  Scenario("fabric-killed", ranks: "2,3", end: .dies, fabricKilled),
  Scenario("exchange-equals-simulated", ranks: "1,2,3,4", exchangeEqualsSimulated),
  Scenario("exchange-in-place", ranks: "2,4", exchangeInPlace),
  Scenario("exchange-bad-input", ranks: "1,2,3,4", exchangeBadInput),
  Scenario("exchange-allocations", ranks: "1,2,4", needsReleaseBuild: true, exchangeAllocations),
  Scenario("stage-allocations", ranks: "1", needsReleaseBuild: true, stageAllocations),
]
