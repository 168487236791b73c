import CrosspointCore
import CrosspointExchange
import CrosspointRouting
import CrosspointTestSupport
import CrosspointTokens
import Glibc

/// One scenario per phase of a training step and per way in which the last rank goes away in it.
let exchangeFaultScenarios: [Scenario] = TransferKind.allCases.flatMap { phase in
  [("stopped", SIGSTOP), ("killed", SIGKILL)].map { name, signal in
    Scenario("exchange-\(name)-\(phase)", ranks: "2,3", end: .dies) { ranks in
      try loseLastRank(ranks, in: phase, by: signal)
    }
  }
}

/// The last rank sends itself a signal instead of making the call; the others name it and end the job.
private func loseLastRank(_ ranks: Ranks, in phase: TransferKind, by signal: Int32) throws {
  let fabric = try ranks.fabric()
  let exchange = try ExpertExchange(fabric: fabric, layout: ExpertLayout(experts: 4, hidden: 32))
  let tokens = try randomBatch(rows: 64, hidden: 32, seed: 1)
  let routing = try randomRouting(tokens: 64, topK: 2, experts: 4, seed: 2)
  func reach(_ here: TransferKind) throws {
    guard here == phase else { return }
    // From here on no rank waits for a slow one: all are about to make the call.
    try ranks.world.barrier()
    if signal == SIGSTOP { fabric.deadline = .milliseconds(1500) }
    if ranks.rank == ranks.last { raise(signal) }
  }
  do {
    try reach(.dispatch)
    let handle = try exchange.dispatch(tokens, routing)
    try reach(.combine)
    _ = try exchange.combine(handle.rows, handle)
    try reach(.combineBackward)
    let gradient = try exchange.combineBackward(tokens, handle)
    try reach(.dispatchBackward)
    _ = try exchange.dispatchBackward(gradient, handle)
  } catch let error as CrosspointError {
    try ranks.expect(error.code, is: .deadlineExceeded, "code (\(error))")
    try ranks.expect(error.operation, is: "\(phase)", "operation named")
    try ranks.expect(error.rank, is: ranks.last, "rank named")
    report("\(error)")
    fabric.abort(exitCode: 3)
  }
  try ranks.expect(false, "the step ended although the last rank was lost")
}
