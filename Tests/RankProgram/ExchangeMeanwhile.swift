import CrosspointCore
import CrosspointExchange
import CrosspointFabric
import CrosspointRouting
import CrosspointTestSupport
import CrosspointTokens

/// Every slice of a rank's own work is done once and in order in each transfer, and changes no bit; one that throws is the
/// same error on every rank.
func exchangeMeanwhile(_ ranks: Ranks) throws {
  let fabric = try ranks.fabric()
  for copies in ExchangeOptions.Copies.all(ranks: ranks.count) {
    let exchange = try ExpertExchange(
      fabric: fabric, layout: ExpertLayout(experts: 5, hidden: 256), options: ExchangeOptions(copies: copies))
    let plain = try step(exchange) { _ throws(CrosspointError) in false }
    for slices in [0, 1, 3, 20_000] {
      var work = TransferKind.allCases.map { kind in
        CountedWork(slices: slices * ((ranks.rank + kind.rawValue) % 3))
      }
      let busy = try step(exchange) { kind throws(CrosspointError) in work[kind.rawValue].next() }
      try ranks.expect(busy.isBitwiseEqual(to: plain), "the same bits with \(slices) slices, \(copies)")
      for work in work {
        let isInOrder = work.done == Array(0..<work.slices)
        try ranks.expect(work.isComplete && isInOrder, "\(work.done.count) of \(work.slices) slices, in order")
      }
    }
    let error = try ranks.expectError(CrosspointError.self, "a slice that throws") {
      _ = try step(exchange) { kind throws(CrosspointError) in
        guard kind == .combineBackward, ranks.rank == ranks.last else { return false }
        throw CrosspointError(.outOfMemory, operation: "shared experts", argument: "rows", "no room")
      }
    }
    try ranks.expect(error.code, is: .outOfMemory, "code")
    try ranks.expect(error.rank, is: ranks.last, "rank")
    let again = try step(exchange) { _ throws(CrosspointError) in false }
    try ranks.expect(again.isBitwiseEqual(to: plain), "the same bits after an error")
  }
}

/// The last of several ranks has no tokens.
private func step(
  _ exchange: ExpertExchange, meanwhile work: (TransferKind) throws(CrosspointError) -> Bool
) throws -> StepResult {
  let place = exchange.localExperts.lowerBound
  let count = exchange.localExperts.upperBound == 5 && place > 0 ? 0 : 200 + place
  return try trainingStep(
    exchange, tokens: randomBatch(rows: count, hidden: 256, seed: UInt64(place)),
    routing: randomRouting(tokens: count, topK: 2, experts: 5, seed: UInt64(place)),
    dy: randomBatch(rows: count, hidden: 256, seed: 9), meanwhile: work)
}
