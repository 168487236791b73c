import CrosspointCompression
import CrosspointCore
import CrosspointFabric
import CrosspointRouting
import CrosspointTestSupport
import CrosspointTokens
import Testing

@testable import CrosspointExchange

/// Ranks of a node get plain rows where the others get coded ones.
@Suite struct PlainWithinNodeTests {
  private static let (hidden, experts, topK, tokens) = (40, 8, 3, 23)

  /// The rows that a rank's experts got, by the rank that sent them, and the step's results.
  private struct Outcome: Sendable {
    var rows: [[Float]]
    var result: StepResult
    var wireBytes: Int
    var nodeBytes: Int
  }

  private static func run(
    ranks: Int, ranksPerNode: Int, _ options: ExchangeOptions
  ) throws -> [Outcome] {
    try SimulatedCluster(ranks: ranks, ranksPerNode: ranksPerNode).run { fabric in
      let exchange = try ExpertExchange(
        fabric: fabric, layout: ExpertLayout(experts: experts, hidden: hidden), options: options)
      let batch = try randomBatch(rows: tokens, hidden: hidden, seed: UInt64(fabric.rank))
      let routing = try randomRouting(tokens: tokens, topK: topK, experts: experts, seed: UInt64(fabric.rank) + 50)
      let handle = try exchange.dispatch(batch, routing)
      let rows = (0..<ranks).map { source in
        var rows: [Float] = []
        handle.received.forEachGroup(from: source) { start, count in
          rows += handle.rows.elements[start * hidden..<(start + count) * hidden]
        }
        return rows
      }
      _ = try exchange.combine(handle.rows, handle)
      exchange.statistics.reset()
      let result = try trainingStep(
        exchange, tokens: batch, routing: routing, dy: randomBatch(rows: tokens, hidden: hidden, seed: 70))
      return Outcome(
        rows: rows, result: result, wireBytes: exchange.statistics.wireBytes, nodeBytes: exchange.statistics.nodeBytes)
    }
  }

  @Test(arguments: [(4, 2), (3, 3), (5, 2)], ["bf16", "rotated:4"])
  func onlyRowsFromOtherNodesAreCoded(ranks: (all: Int, ofNode: Int), format: String) throws {
    var options = ExchangeOptions(wire: .init(try #require(WireFormat(format))))
    let coded = try Self.run(ranks: ranks.all, ranksPerNode: ranks.ofNode, options)
    let plain = try Self.run(ranks: ranks.all, ranksPerNode: ranks.ofNode, .init())
    options.withinNode = .plain
    let mixed = try Self.run(ranks: ranks.all, ranksPerNode: ranks.ofNode, options)
    for rank in 0..<ranks.all {
      for source in 0..<ranks.all {
        let isOfNode = rank / ranks.ofNode == source / ranks.ofNode
        #expect(mixed[rank].rows[source] == (isOfNode ? plain : coded)[rank].rows[source], "\(source) to \(rank)")
        if rank != source { #expect(plain[rank].rows[source] != coded[rank].rows[source]) }
      }
      #expect(mixed[rank].wireBytes - mixed[rank].nodeBytes == coded[rank].wireBytes - coded[rank].nodeBytes)
    }
    // Where all ranks are of one node, nothing is coded.
    if ranks.all == ranks.ofNode {
      for (a, b) in zip(mixed, plain) { #expect(a.result.isBitwiseEqual(to: b.result)) }
    }
  }

  @Test(arguments: ExchangeOptions.Copies.all(ranks: 3))
  func clustersAndCopiesDoNotMind(copies: ExchangeOptions.Copies) throws {
    for compression in [ExchangeOptions.Compression.off, .crossPolytope()] {
      let plain = try ExchangeOptions(
        compression: compression, copies: copies, wire: .init(.rotated(bits: 6)), withinNode: .plain)
      let lossless = ExchangeOptions(compression: compression, copies: copies)
      let ours = try Self.run(ranks: 3, ranksPerNode: 3, plain)
      let theirs = try Self.run(ranks: 3, ranksPerNode: 3, lossless)
      for (a, b) in zip(ours, theirs) where copies == .perExpert {
        #expect(a.result.isBitwiseEqual(to: b.result), "\(compression)")
      }
      // Shares travel in bf16 beside a format that rounds.
      for (a, b) in zip(ours, theirs) { #expect(a.rows == b.rows, "\(compression), \(copies)") }
    }
  }

  @Test func aPolicysBudgetIsNotLeftToIt() {
    let options = ExchangeOptions(withinNode: .plain, policy: .budget(bytes: 0.1))
    let error = #expect(throws: CrosspointError.self) { try options.validate() }
    #expect(error?.argument == "withinNode" && error?.code == .invalidArgument)
  }
}
