import CAllocationCounter
import CrosspointCompression
import CrosspointExchange
import CrosspointFabric
import CrosspointRouting
import CrosspointTestSupport
import CrosspointTokens

/// A warm training step makes no call to the allocator, compressed or not, over simulated ranks and over MPI, which grows
/// pools of its own.
func exchangeAllocations(_ ranks: Ranks) throws {
  for compression in [ExchangeOptions.Compression.off, .crossPolytope(.init(functions: 2, width: 16))] {
    let options = ExchangeOptions(compression: compression, wire: .init(.bf16))
    let fabric = try ranks.fabric()
    let calls = try allocations(of: fabric, options: options)
    try ranks.expect(calls, is: 0, "allocator calls in five warm steps over MPI, \(compression)")
  }
  let plain = try allocations(of: ranks.fabric(), tokens: 2000, options: ExchangeOptions())
  try ranks.expect(plain, is: 0, "allocator calls in five warm steps over MPI, rows in place")
  let rounded = try allocations(
    of: ranks.fabric(),
    options: ExchangeOptions(wire: .init(try .rotated(bits: 2))))
  try ranks.expect(rounded, is: 0, "allocator calls in five warm steps over MPI, rounding without bias")
  let mixed = try allocations(
    of: ranks.fabric(),
    options: ExchangeOptions(
      compression: .crossPolytope(.init(functions: 2, width: 16)), wire: .init(try .mixed(low: 2, high: 4))))
  try ranks.expect(mixed, is: 0, "allocator calls in five warm steps over MPI, rows of two precisions")
  for compression in [ExchangeOptions.Compression.off, .crossPolytope(.init(functions: 2, width: 16))] {
    for wire in [WireFormat.fp32, .bf16] {
      let shared = try allocations(
        of: ranks.fabric(), options: ExchangeOptions(compression: compression, copies: .perRank, wire: .init(wire)))
      try ranks.expect(shared, is: 0, "allocator calls in five warm steps, one copy per rank, \(compression), \(wire)")
    }
  }
  guard ranks.count == 1 else { return }
  for compression in [ExchangeOptions.Compression.off, .crossPolytope(.init(functions: 2, width: 16))] {
    for copies in ExchangeOptions.Copies.all(ranks: 3) {
      let options = ExchangeOptions(compression: compression, copies: copies, wire: .init(.bf16))
      let calls = try SimulatedCluster(ranks: 3).run { try allocations(of: $0, options: options) }
      try ranks.expect(
        calls.max(), is: 0, "allocator calls in five warm steps over simulated ranks, \(compression), \(copies)")
    }
  }
}

/// Calls between two barriers that enclose five steps; the experts are the identity, so that only the exchange is counted,
/// with a little work meanwhile.
private func allocations(of fabric: any Fabric, tokens count: Int = 200, options: ExchangeOptions) throws -> UInt {
  let hidden = 64
  let exchange = try ExpertExchange(
    fabric: fabric, layout: ExpertLayout(experts: 6, hidden: hidden), options: options)
  let tokens = try clusteredBatch(rows: count, hidden: hidden, seed: UInt64(fabric.rank))
  let routing = try randomRouting(tokens: count, topK: 2, experts: 6, seed: UInt64(fabric.rank))
  let dy = try randomBatch(rows: count, hidden: hidden, seed: 3)
  func step() throws {
    var slices = 0
    let handle = try exchange.dispatch(tokens, routing) {
      slices += 1
      return slices < 20
    }
    _ = try exchange.combine(handle.rows, handle)
    let gradient = try exchange.combineBackward(dy, handle) {
      slices += 1
      return slices < 40
    }
    _ = try exchange.dispatchBackward(gradient, handle)
  }
  for _ in 0..<4 { try step() }
  try fabric.barrier(operation: "allocations")
  xp_start_counting()
  for _ in 0..<5 { try step() }
  let calls = xp_stop_counting()
  withExtendedLifetime(routing) {}  // its end is no part of a step
  try fabric.barrier(operation: "allocations")
  return calls
}
