import CrosspointCore
import CrosspointExchange
import CrosspointRouting
import CrosspointTestSupport
import CrosspointTokens

#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// One scenario per phase of a training step and per way in which the last rank goes away in it.
let exchangeFaultScenarios: [Scenario] = LayerStatistics.TransferKind.allCases.flatMap { phase in
  [("stopped", SIGSTOP), ("killed", SIGKILL)].map { name, signal in
    Scenario("exchange-\(name)-\(phase)", ranks: "2,3", end: .dies) { ranks in
      try loseLastRank(ranks, in: phase, by: signal)
    }
  }
}

/// The last rank sends itself a signal instead of making the call; the others name it and end the job.
private func loseLastRank(_ ranks: Ranks, in phase: LayerStatistics.TransferKind, by signal: Int32) throws {
  let fabric = try ranks.fabric(deadline: .milliseconds(700))
  let exchange = try ExpertExchange(fabric: fabric, layout: ExpertLayout(experts: 4, hidden: 32))
  let tokens = try randomBatch(rows: 64, hidden: 32, seed: 1)
  let routing = try randomRouting(tokens: 64, topK: 2, experts: 4, seed: 2)
  func reach(_ here: LayerStatistics.TransferKind) {
    if here == phase, ranks.rank == ranks.last { raise(signal) }
  }
  do {
    reach(.dispatch)
    let handle = try exchange.dispatch(tokens, routing)
    reach(.combine)
    _ = try exchange.combine(handle.rows, handle)
    reach(.combineBackward)
    let gradient = try exchange.combineBackward(tokens, handle)
    reach(.dispatchBackward)
    _ = try exchange.dispatchBackward(gradient, handle)
  } catch {
    try ranks.expect(error.code, is: .deadlineExceeded, "code (\(error))")
    try ranks.expect(error.operation, is: "\(phase)", "operation named")
    try ranks.expect(error.rank, is: ranks.last, "rank named")
    report("\(error)")
    fabric.abort(exitCode: 3)
  }
  try ranks.expect(false, "the step ended although the last rank was lost")
}
