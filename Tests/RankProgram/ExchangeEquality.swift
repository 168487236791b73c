import CrosspointCompression
import CrosspointCore
import CrosspointExchange
import CrosspointFabric
import CrosspointRouting
import CrosspointTestSupport
import CrosspointTokens

/// Real and simulated ranks give the same bits: lossless and lossy, with ragged and empty ranks.
func exchangeEqualsSimulated(_ ranks: Ranks) throws {
  let rank = ranks.rank
  let fabric = try ranks.fabric()
  for (index, options) in equalityOptions.enumerated() {
    for hidden in [1, 24, 384] where options.compression == .off || hidden >= 24 {
      let real = try equalityStep(fabric, hidden: hidden, options: options, seed: UInt64(index))
      let simulated = try SimulatedCluster(ranks: ranks.count).run { fabric in
        try equalityStep(fabric, hidden: hidden, options: options, seed: UInt64(index))
      }
      try ranks.expect(
        real.isBitwiseEqual(to: simulated[rank]), "hidden \(hidden), \(options): the same bits as simulated ranks give")
    }
  }
}

/// Real and simulated ranks remember the same, every one of them.
func exchangeMemory(_ ranks: Ranks) throws {
  @Sendable func learn(_ fabric: any Fabric) throws -> (state: ExchangeState, last: StepResult) {
    let exchange = try ExpertExchange(
      fabric: fabric, layout: ExpertLayout(experts: 4, hidden: 24),
      options: ExchangeOptions(copies: .perRank, wire: .init(try .entropy(bits: 3)), memory: 4))
    var result: StepResult?
    for step in 0..<6 {
      let seed = UInt64(100 * step + fabric.rank)
      result = try trainingStep(
        exchange, tokens: clusteredBatch(rows: 200, hidden: 24, seed: seed),
        routing: randomRouting(tokens: 200, topK: 2, experts: 4, seed: seed),
        dy: randomBatch(rows: 200, hidden: 24, seed: seed + 1), labels: (0..<200).map { $0 % 5 })
    }
    return (exchange.state, result!)
  }
  let real = try learn(ranks.fabric())
  let simulated = try SimulatedCluster(ranks: ranks.count).run(learn)
  try ranks.expect(simulated.allSatisfy { $0.state == real.state }, "every rank remembers the same")
  try ranks.expect(
    real.last.isBitwiseEqual(to: simulated[ranks.rank].last), "the same bits as simulated ranks give")
}

/// The same where groups are large enough to travel as blocks of their own.
func exchangeInPlace(_ ranks: Ranks) throws {
  let fabric = try ranks.fabric()
  for copies in ExchangeOptions.Copies.all(ranks: ranks.count) {
    let options = ExchangeOptions(copies: copies)
    let real = try equalityStep(fabric, hidden: 512, tokens: 500, options: options, seed: 7)
    let simulated = try SimulatedCluster(ranks: ranks.count).run { fabric in
      try equalityStep(fabric, hidden: 512, tokens: 500, options: options, seed: 7)
    }
    try ranks.expect(real.isBitwiseEqual(to: simulated[ranks.rank]), "\(copies): the same bits as simulated ranks give")
  }
}

/// What is wrong on one rank is the same error on all of them.
func exchangeBadInput(_ ranks: Ranks) throws {
  let fabric = try ranks.fabric()
  let exchange = try ExpertExchange(fabric: fabric, layout: ExpertLayout(experts: 3, hidden: 8))
  let tokens = try randomBatch(rows: 5, hidden: 8, seed: 1)
  if ranks.rank == ranks.last { tokens.elements[17] = .nan }
  let routing = try randomRouting(tokens: 5, topK: 1, experts: 3, seed: 1)
  let error = try ranks.expectError(CrosspointError.self, "a NaN on the last rank") {
    _ = try exchange.dispatch(tokens, routing)
  }
  try ranks.expect(error.code, is: .nonFinite, "code")
  try ranks.expect(error.rank, is: ranks.last, "rank")
  try ranks.expect(error.message.contains("row 2, column 1"), "the message names row and column: \(error.message)")

  // The exchange is still usable: nothing was lost, nobody is out of step.
  if ranks.rank == ranks.last { tokens.elements[17] = 0 }
  let handle = try exchange.dispatch(tokens, routing)
  _ = try exchange.combine(handle.rows, handle)

  guard ranks.count > 1 else { return }
  let disagreement = try ranks.expectError(CrosspointError.self, "different options") {
    let options = ExchangeOptions(seed: ranks.rank == ranks.last ? 2 : 1)
    _ = try ExpertExchange(fabric: fabric, layout: ExpertLayout(experts: 3, hidden: 8), options: options)
  }
  try ranks.expect(disagreement.code, is: .ranksDisagree, "code")
  try ranks.expect(disagreement.rank, is: ranks.last, "rank")
}

private let equalityOptions: [ExchangeOptions] = [
  ExchangeOptions(),
  ExchangeOptions(wire: .init(.bf16)),
  ExchangeOptions(compression: .crossPolytope(), compensation: .identity, wire: .init(.bf16)),
  ExchangeOptions(compression: .crossPolytope(.init(functions: 2, width: 8)), compensation: .lowRank(2)),
  ExchangeOptions(compression: .lshMoE, compensation: .none, wire: .init(try! .rotated(bits: 4))),
  ExchangeOptions(wire: .init(try! .rotated(bits: 2))),
  ExchangeOptions(wire: .init(try! .zipCache(bits: 4))),
  ExchangeOptions(wire: .init(try! .rotated(bits: 1))),
  ExchangeOptions(compression: .crossPolytope(), wire: .init(try! .mixed(low: 2, high: 4))),
  ExchangeOptions(wire: .init(try! .mixed(low: 3, high: 8, fraction: 0.125))),
  ExchangeOptions(copies: .perRank),
  ExchangeOptions(copies: .perNode(ranks: 1)),
  ExchangeOptions(compression: .crossPolytope(), copies: .perRank, wire: .init(.bf16)),
  ExchangeOptions(copies: .perRank, wire: .init(try! .rotated(bits: 2))),
]

private func equalityStep(
  _ fabric: any Fabric, hidden: Int, tokens: Int = 40, options: ExchangeOptions, seed: UInt64
) throws -> StepResult {
  let experts = 5
  let rank = UInt64(fabric.rank)
  // The last rank has no tokens.
  let count = fabric.rank == fabric.rankCount - 1 && fabric.rankCount > 1 ? 0 : tokens + 3 * fabric.rank
  let exchange = try ExpertExchange(
    fabric: fabric, layout: ExpertLayout(experts: experts, hidden: hidden), options: options)
  return try trainingStep(
    exchange, tokens: clusteredBatch(rows: count, hidden: hidden, seed: seed + rank),
    routing: randomRouting(tokens: count, topK: 2, experts: experts, seed: seed + 10 * rank),
    dy: randomBatch(rows: count, hidden: hidden, seed: seed + 100 * rank))
}
