import CrosspointCompression
import CrosspointCore
import CrosspointFabric
import CrosspointPolicy
import CrosspointRouting
import CrosspointTestSupport
import CrosspointTokens
import Testing

@testable import CrosspointExchange

/// Ranks of a node share memory: rows are written or read there, and no bit changes.
@Suite struct NodeTests {
  /// Whose experts write to the memory of their handles.
  enum InPlace: CaseIterable {
    case none, some, all

    func includes(_ rank: Int) -> Bool { self == .all || (self == .some && rank % 2 == 0) }
  }

  /// Three steps with changing counts; the last of several ranks has tokens only in the second.
  static func steps(
    _ fabric: any Fabric, experts: Int, _ options: ExchangeOptions, tokens: Int, inPlace: InPlace = .none,
    smallBytes: Int? = nil
  ) throws -> (results: [StepResult], statistics: LayerStatistics) {
    let (hidden, topK) = (40, min(3, experts))
    let exchange = try ExpertExchange(
      fabric: fabric, layout: ExpertLayout(experts: experts, hidden: hidden), options: options, smallBytes: smallBytes)
    let results = try (0..<3).map { step in
      let seed = UInt64(100 * step + fabric.rank)
      let isEmpty = fabric.rankCount > 1 && fabric.rank == fabric.rankCount - 1 && step != 1
      let count = isEmpty ? 0 : tokens + 5 * fabric.rank + 3 * step
      return try trainingStep(
        exchange, tokens: clusteredBatch(rows: count, hidden: hidden, seed: seed),
        routing: randomRouting(tokens: count, topK: topK, experts: experts, seed: seed + 50),
        dy: randomBatch(rows: count, hidden: hidden, seed: seed + 70), inPlace: inPlace.includes(fabric.rank))
    }
    return (results, exchange.statistics)
  }

  /// Every combination of ranks and nodes gives what messages alone give, and counts the same bytes; whichever bodies travel
  /// with their announcements. Each size of node takes every way, each with another bound of small bodies.
  static func expectNoBitChanges(
    ranks: Int, experts: Int, _ options: ExchangeOptions, tokens: Int = 17, inPlace ways: [InPlace] = InPlace.allCases,
    smallBytes: [Int?] = [nil]
  ) throws {
    let messages = try SimulatedCluster(ranks: ranks).run { try steps($0, experts: experts, options, tokens: tokens) }
    for ranksPerNode in Set([1, 2, 3, ranks]) where ranksPerNode <= max(2, ranks) {
      for (index, inPlace) in ways.enumerated() {
        let smallBytes = smallBytes[(index + ranksPerNode) % smallBytes.count]
        let shared = try SimulatedCluster(ranks: ranks, ranksPerNode: ranksPerNode).run {
          try steps($0, experts: experts, options, tokens: tokens, inPlace: inPlace, smallBytes: smallBytes)
        }
        for (one, other) in zip(messages, shared) {
          for (a, b) in zip(one.results, other.results) {
            #expect(
              a.isBitwiseEqual(to: b),
              "\(ranks) ranks, \(ranksPerNode) a node, \(experts) experts, \(inPlace), small \(smallBytes as Any), \(options)"
            )
          }
          #expect(one.statistics.wireBytes == other.statistics.wireBytes)
          #expect(one.statistics.choices == other.statistics.choices)
          #expect(one.statistics.nodeBytes == 0)
        }
        let nodeBytes = shared.reduce(0) { $0 + $1.statistics.nodeBytes }
        #expect((nodeBytes > 0) == (ranks > 1 && ranksPerNode > 1), "\(nodeBytes) bytes within nodes")
      }
    }
  }

  @Test(arguments: [1, 2, 3, 4, 5, 7], [1, 5, 16])
  func plainRowsOfANodeKeepEveryBit(ranks: Int, experts: Int) throws {
    // Of rows of 160 bytes none, four, or all.
    try Self.expectNoBitChanges(ranks: ranks, experts: experts, .init(), smallBytes: [0, 700, nil])
  }

  @Test(arguments: 1...4, 0..<3)
  func copiesAndClustersOfANodeKeepEveryBit(ranks: Int, kind: Int) throws {
    let copies = ExchangeOptions.Copies.all(ranks: ranks)[kind]
    for compensation in [ResidualCompensation.none, .identity] {
      try Self.expectNoBitChanges(
        ranks: ranks, experts: 7,
        .init(compression: .crossPolytope(), copies: copies, compensation: compensation), smallBytes: [0, 700])
    }
    try Self.expectNoBitChanges(ranks: ranks, experts: 7, .init(copies: copies), smallBytes: [0, 700, nil])
  }

  /// It sees the same rows and counts the same bytes: it chooses the same.
  @Test(
    arguments: [ExchangeOptions.Policy.budget(bytes: 0.2), .budget(relativeError: 0.05)],
    [ExchangeOptions.Compression.off, .crossPolytope()])
  func aPolicyChoosesTheSame(policy: ExchangeOptions.Policy, compression: ExchangeOptions.Compression) throws {
    try Self.expectNoBitChanges(
      ranks: 3, experts: 4, .init(compression: compression, policy: policy), tokens: 150, inPlace: [.all])
  }

  @Test(
    arguments: [
      WireFormat.bf16, .fp16, .fp8, .int8, .int4, try .zipCache(bits: 4), try .rotated(bits: 3),
      try .mixed(low: 2, high: 6), try .entropy(bits: 2.5),
    ], 0..<3)
  func codedRowsOfANodeKeepEveryBit(wire: WireFormat, kind: Int) throws {
    for ranks in kind == 2 ? [4] : [2, 5] {
      let copies = ExchangeOptions.Copies.all(ranks: ranks)[kind]
      try Self.expectNoBitChanges(
        ranks: ranks, experts: 6, .init(copies: copies, wire: .init(wire)),
        inPlace: [.some], smallBytes: [0, nil])
    }
  }
}
