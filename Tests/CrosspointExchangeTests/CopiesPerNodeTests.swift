import CrosspointCompression
import CrosspointCore
import CrosspointFabric
import CrosspointRouting
import CrosspointTestSupport
import CrosspointTokens
import Testing

@testable import CrosspointExchange

/// One copy per node: the same mixture, a row for each pair of token and node.
@Suite struct CopiesPerNodeTests {
  @Test(arguments: [(2, 2), (3, 3), (4, 2), (6, 3), (6, 2)], [(5, 2), (8, 4), (3, 1), (70, 6)])
  func sumsAndGradientsAreThoseOfARowPerPair(
    nodes: (ranks: Int, size: Int), shape: (experts: Int, topK: Int)
  ) throws {
    func step(_ copies: ExchangeOptions.Copies) throws -> [(result: StepResult, statistics: LayerStatistics)] {
      try CopiesTests.step(
        ranks: nodes.ranks, experts: shape.experts, topK: shape.topK, options: .init(copies: copies)
      ) { $0 - 0.3 }
    }
    for (a, b) in zip(try step(.perExpert), try step(.perNode(ranks: nodes.size))) {
      #expect(relativeError(a.result.y, b.result.y) < 1e-6)
      #expect(relativeError(a.result.tokenGradients, b.result.tokenGradients) < 1e-6)
      #expect(relativeError(a.result.weightGradients, b.result.weightGradients) < 5e-6)
      #expect(a.result.rowOrigins.count == b.result.rowOrigins.count, "the experts get as many rows")
      #expect(a.statistics.tokensPerExpert == b.statistics.tokensPerExpert)
      #expect(a.statistics.uncompressedBytes == b.statistics.uncompressedBytes)
      #expect(b.statistics.rowsSent <= a.statistics.rowsSent)
    }
  }

  /// Between nodes a token crosses once to each other node that holds one of its experts, whatever the machine's nodes are.
  @Test(arguments: [(4, 2), (6, 3), (8, 4)])
  func rowsBetweenNodesAreThePairsOfTokenAndOtherNode(ranks: Int, size: Int) throws {
    let (experts, topK, tokens) = (3 * ranks, 5, 40)
    let sent = try SimulatedCluster(ranks: ranks, ranksPerNode: size).run { fabric -> (rows: Int, wanted: Int) in
      let exchange = try ExpertExchange(
        fabric: fabric, layout: ExpertLayout(experts: experts, hidden: 4096), options: .init(copies: .perNode()))
      let routing = try randomRouting(tokens: tokens, topK: topK, experts: experts, seed: UInt64(fabric.rank))
      _ = try exchange.dispatch(randomBatch(rows: tokens, hidden: 4096, seed: UInt64(fabric.rank)), routing)
      let pairs = (0..<tokens).reduce(0) { sum, token in
        let nodes = Set(
          routing.topkIndices[token * topK..<(token + 1) * topK].filter { $0 >= 0 }.map {
            exchange.layout.rank(of: Int($0), rankCount: ranks) / size
          })
        return sum + nodes.subtracting([fabric.rank / size]).count
      }
      let traffic = exchange.statistics[.dispatch]
      return ((traffic.wireBytes - traffic.nodeBytes) / 16384, pairs)
    }
    for (rows, wanted) in sent { #expect(rows == wanted) }
  }

  @Test func nodesOfOneRankAreOneCopyPerRankBitForBit() throws {
    for wire in [WireFormat.fp32, try .rotated(bits: 4)] {
      let (one, other) = (
        try CopiesTests.step(ranks: 4, experts: 8, topK: 4, options: .init(copies: .perRank, wire: .init(wire))),
        try CopiesTests.step(
          ranks: 4, experts: 8, topK: 4, options: .init(copies: .perNode(ranks: 1), wire: .init(wire)))
      )
      for (a, b) in zip(one, other) {
        #expect(a.result.isBitwiseEqual(to: b.result))
        #expect(a.statistics.wireBytes == b.statistics.wireBytes)
      }
    }
  }

  /// A rank of the machine's node that is missing or one too many.
  @Test func ranksThatDoNotFormNodesAreRefusedByName() {
    for (ranks, perNode, copies) in [
      (5, 2, .perNode()), (4, 3, .perNode()), (4, 1, .perNode(ranks: 3)), (2, 1, .perNode(ranks: 4)),
      (2, 1, .perNode(ranks: 0)),
    ] as [(Int, Int, ExchangeOptions.Copies)] {
      let thrown = errors(ranks: ranks, ranksPerNode: perNode) { fabric in
        _ = try ExpertExchange(
          fabric: fabric, layout: ExpertLayout(experts: 8, hidden: 8), options: .init(copies: copies))
      }
      #expect(thrown.count == ranks)
      for error in thrown {
        #expect([.invalidArgument, .ranksDisagree].contains(error.code), "\(error)")
        #expect("\(error)".contains("copies") || "\(error)".contains("ranks of a node"), "\(error)")
      }
    }
  }

  /// What is wrong on one rank is its error on all, also where it shows only within its node; the exchange goes on.
  @Test(arguments: TransferKind.allCases, [2, 4])
  func badRowsOfOneRankAreTheSameErrorOnAll(kind: TransferKind, perNode: Int) {
    let thrown = errors(ranks: 4, ranksPerNode: perNode) { fabric in
      let exchange = try ExpertExchange(
        fabric: fabric, layout: BadInputTests.layout, options: .init(copies: .perNode(ranks: 2)))
      do { try NodeFaultTests.step(exchange, fabric, bad: fabric.rank == 1 ? kind : nil) } catch {
        try NodeFaultTests.step(exchange, fabric, bad: nil)
        throw error
      }
    }
    NodeFaultTests.expectBadRow(of: kind, in: thrown, ranks: 4)
  }

  /// A transfer that failed between nodes, after the part within the node was done, can be made again.
  @Test func aHandleServesAgainAfterAnErrorBetweenNodes() throws {
    let outputs = try SimulatedCluster(ranks: 4).run { fabric -> [[Float]] in
      let exchange = try ExpertExchange(
        fabric: fabric, layout: BadInputTests.layout, options: .init(copies: .perNode(ranks: 2)))
      let tokens = try randomBatch(rows: 6, hidden: 8, seed: UInt64(fabric.rank))
      let handle = try exchange.dispatch(tokens, randomRouting(tokens: 6, topK: 2, experts: 4, seed: 1))
      let wrong = try TokenBatch(rows: fabric.rank == 3 ? 5 : 6, hidden: 8)
      #expect(throws: CrosspointError.self) { try exchange.combine(handle.rows, handle, into: wrong) }
      let once = try exchange.combine(handle.rows, handle).array
      let fresh = try exchange.dispatch(tokens, randomRouting(tokens: 6, topK: 2, experts: 4, seed: 1))
      return [once, try exchange.combine(fresh.rows, fresh).array]
    }
    for results in outputs { #expect(firstBitDifference(results[0], results[1]) == nil) }
  }
}
