import Glibc
import MPI

/// MPI runs, names itself and its node, has a clock that goes forward, and refuses to start twice; a limit on its calls
/// leaves the program's own timer as it was.
func mpiEnvironment(_ ranks: Ranks) throws {
  try ranks.expect(MPIEnvironment.isRunning, "MPI runs")
  try ranks.expect(!MPIEnvironment.isFinalized, "MPI has not ended")
  try ranks.expect(try MPIEnvironment.threadLevel >= .serialized, "thread level is at least serialized")
  try ranks.expect(!MPIEnvironment.processorName.isEmpty, "the node has a name")
  let version = MPIEnvironment.libraryVersion
  try ranks.expect(version.contains("MPI") && !version.contains("\n"), "library version on one line: \(version)")
  try ranks.expect(MPIEnvironment.standardVersion.major >= 3, "MPI 3 or later")
  let start = MPIEnvironment.wallTime
  while MPIEnvironment.wallTime - start < 2 * MPIEnvironment.wallTick {}
  let error = try ranks.expectError(MPIError.self, "a second start") { try MPIEnvironment.initialize() }
  try ranks.expect(error.call, is: "MPI_Init_thread", "call")
  alarm(1000)
  let result = MPIEnvironment.bounded(by: .seconds(100), report: "not within the limit") { 7 }
  try ranks.expect(result == 7 && (900...1000).contains(alarm(0)), "the program's timer runs on")
}
