import CrosspointCompression
import CrosspointCore
import CrosspointExchange
import CrosspointFabric
import CrosspointTestSupport

/// Experts in waves: every row once, and the bits of a step without; a wave that throws is the same error on every rank.
func exchangeWaves(_ ranks: Ranks) throws {
  let fabric = try ranks.fabric()
  for copies in ExchangeOptions.Copies.all(ranks: ranks.count) {
    for format in [WireFormat.fp32, .bf16, try .entropy(bits: 3), try .rotated(bits: 4)] {
      // The rounding of gradients draws other numbers in each step of an exchange.
      func makeExchange() throws -> ExpertExchange {
        try ExpertExchange(
          fabric: fabric, layout: ExpertLayout(experts: 5, hidden: 256),
          options: ExchangeOptions(copies: copies, wire: .init(format)))
      }
      let place = ranks.rank
      // Bodies of more than 64 KiB; the last of several ranks has no tokens.
      let count = place > 0 && place == ranks.last ? 0 : 400 + place
      let tokens = try randomBatch(rows: count, hidden: 256, seed: UInt64(place))
      let routing = try randomRouting(tokens: count, topK: 2, experts: 5, seed: UInt64(place))
      let dy = try randomBatch(rows: count, hidden: 256, seed: 9)
      let plain = try trainingStep(makeExchange(), tokens: tokens, routing: routing, dy: dy)
      var seen = [TransferKind.dispatch: SeenWaves(), .combineBackward: SeenWaves()]
      var rowsPerExpert = [0]
      let waved = try wavedStep(makeExchange(), tokens: tokens, routing: routing, dy: dy) {
        kind, handle, wave throws(CrosspointError) in
        seen[kind]!.add(wave)
        rowsPerExpert = handle.rowsPerExpert
      }
      for (kind, waves) in seen {
        let flaw = waves.flaw(rowsPerExpert: rowsPerExpert)
        try ranks.expect(flaw == nil, "\(copies), \(format), \(kind): \(flaw ?? "")")
      }
      try ranks.expect(waved.isBitwiseEqual(to: plain), "the same bits in waves, \(copies), \(format)")

      let error = try ranks.expectError(CrosspointError.self, "a wave that throws") {
        _ = try wavedStep(makeExchange(), tokens: tokens, routing: routing, dy: dy) {
          kind, _, _ throws(CrosspointError) in
          guard kind == .combineBackward, ranks.rank == 0 else { return }
          throw CrosspointError(.outOfMemory, operation: "experts", argument: "rows", "no room")
        }
      }
      try ranks.expect(error.code, is: .outOfMemory, "code")
      try ranks.expect(error.rank, is: 0, "rank")
    }
  }
}
