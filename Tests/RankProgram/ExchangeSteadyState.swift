import CAllocationCounter
import CrosspointCore
import CrosspointExchange
import CrosspointFabric
import CrosspointRouting
import CrosspointTestSupport
import CrosspointTokens

/// Training steps, two thousand of plain rows, each with other tokens and other experts in demand, within the range that the first fifty
/// span: from then on the exchange neither calls the allocator nor touches pages for the first time, so its resident memory
/// stays what it is. Where rows stand for several pairs, how many there are is drawn anew: there it does so in one step of
/// fifty at most.
func exchangeSteadyState(_ ranks: Ranks) throws {
  let clusters = ExchangeOptions.Compression.crossPolytope(.init(functions: 2, width: 16))
  let cases = [
    ("fp32", ExchangeOptions()),
    ("rotated", ExchangeOptions(wire: .init(try .rotated(bits: 4)))),
    ("entropy", ExchangeOptions(wire: .init(try .entropy(bits: 2)))),
    ("one copy per rank", ExchangeOptions(copies: .perRank, wire: .init(.bf16))),
    ("one copy per node", ExchangeOptions(copies: .perNode(ranks: ranks.count == 1 ? 3 : 2), wire: .init(.bf16))),
    ("clusters", ExchangeOptions(compression: clusters, wire: .init(.bf16))),
    ("clusters per rank", ExchangeOptions(compression: clusters, copies: .perRank, wire: .init(try .rotated(bits: 4)))),
  ]
  for (name, options) in cases {
    let steps = ranks.count == 1 && name == "fp32" ? 2_000 : 500
    let uses =
      ranks.count == 1
      ? try SimulatedCluster(ranks: 3).run { try steadyUse(of: $0, options: options, steps: steps) }
      : [try steadyUse(of: ranks.fabric(), options: options, steps: steps)]
    for use in uses {
      let calls = options.compression == .off && options.copies == .perExpert ? 0 : UInt(steps / 50)
      try ranks.expect(use.calls <= calls, "\(use.calls) allocator calls after fifty steps, \(name)")
      // A few pages may be of stacks, or of MPI.
      try ranks.expect(use.pages <= 16 + 32 * calls, "\(use.pages) new pages after fifty steps, \(name)")
    }
  }
}

/// What a rank asked the system for after the first fifty steps.
private struct SystemUse {
  var calls: UInt = 0
  var pages: UInt = 0
}

private func steadyUse(of fabric: any Fabric, options: ExchangeOptions, steps: Int) throws -> SystemUse {
  let (hidden, experts, most) = (64, 8, 320)
  let exchange = try ExpertExchange(
    fabric: fabric, layout: ExpertLayout(experts: experts, hidden: hidden), options: options)
  let floats = try clusteredBatch(rows: most, hidden: hidden, seed: UInt64(fabric.rank)).array
  var generator = SplitMix64(seed: UInt64(fabric.rank))
  var use = SystemUse()
  for step in 0..<steps {
    let count = most - step % 5 * 4
    let tokens = try TokenBatch(Array(floats[..<(count * hidden)]), hidden: hidden)
    let routing = try driftingRouting(tokens: count, experts: experts, step: step, &generator)
    let pages = xp_page_faults()
    xp_start_counting()
    let handle = try exchange.dispatch(tokens, routing)
    _ = try exchange.combine(handle.rows, handle)
    let gradient = try exchange.combineBackward(tokens, handle)
    _ = try exchange.dispatchBackward(gradient, handle)
    let calls = xp_stop_counting()
    guard step >= 50 else { continue }
    use.calls += calls
    use.pages += xp_page_faults() - pages
  }
  return use
}

/// Two experts for each token, at random but for one that is in demand, another one from step to step: for all tokens in
/// the first steps, for none in as many more, then for a tenth to nine tenths.
private func driftingRouting(
  tokens: Int, experts: Int, step: Int, _ generator: inout SplitMix64
) throws -> Routing {
  let wanted = step * 3 % experts
  let share = step < experts ? 1 : step < 2 * experts ? 0 : Float(1 + step / 3 % 9) / 10
  var indices: [Int32] = []
  for _ in 0..<tokens {
    let first = generator.nextUnit() < share ? wanted : Int.random(in: 0..<experts, using: &generator)
    let distance = Int.random(in: 1..<experts, using: &generator)
    indices += [Int32(first), Int32((first + distance) % experts)]
  }
  return try Routing(
    topkIndices: indices, topkWeights: [Float](repeating: 0.5, count: indices.count), topK: 2, experts: experts)
}
