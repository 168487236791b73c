import CrosspointCompression
import CrosspointCore
import CrosspointFabric
import CrosspointRouting
import CrosspointTestSupport
import CrosspointTokens
import Testing

@testable import CrosspointExchange

/// One copy per rank: the same mixture as a row per pair, in fewer rows.
@Suite struct CopiesTests {
  static func step(
    ranks: Int, hidden: Int = 12, experts: Int, topK: Int, options: ExchangeOptions,
    weights: @escaping @Sendable (Float) -> Float = { $0 }
  ) throws -> [(result: StepResult, statistics: LayerStatistics)] {
    try SimulatedCluster(ranks: ranks).run { fabric in
      let count = fabric.rank == 1 ? 0 : 9 + 5 * fabric.rank
      let exchange = try ExpertExchange(
        fabric: fabric, layout: ExpertLayout(experts: experts, hidden: hidden), options: options)
      let drawn = try randomRouting(tokens: count, topK: topK, experts: experts, seed: UInt64(fabric.rank + 20))
      let routing = try Routing(
        topkIndices: drawn.topkIndices, topkWeights: drawn.topkWeights.map(weights), topK: topK, experts: experts)
      let result = try trainingStep(
        exchange, tokens: clusteredBatch(rows: count, hidden: hidden, noise: 0.3, seed: UInt64(fabric.rank + 7)),
        routing: routing, dy: randomBatch(rows: count, hidden: hidden, seed: UInt64(fabric.rank + 40)))
      return (result, exchange.statistics)
    }
  }

  /// More experts than one word of marks holds, fewer than ranks, and numbers that do not divide.
  @Test(arguments: [1, 2, 3, 4], [(5, 2), (8, 4), (3, 1), (70, 6), (2, 2)])
  func sumsAndGradientsAreThoseOfARowPerPair(ranks: Int, shape: (experts: Int, topK: Int)) throws {
    // As they are; of either sign; all zero but for some.
    let kinds: [@Sendable (Float) -> Float] = [{ $0 }, { $0 - 0.5 }, { $0 < 0.6 ? 0 : $0 }]
    for weights in kinds {
      let apart = try Self.step(
        ranks: ranks, experts: shape.experts, topK: shape.topK, options: .init(), weights: weights)
      let once = try Self.step(
        ranks: ranks, experts: shape.experts, topK: shape.topK, options: .init(copies: .perRank), weights: weights)
      for (a, b) in zip(apart, once) {
        #expect(relativeError(a.result.y, b.result.y) < 1e-6)
        #expect(relativeError(a.result.tokenGradients, b.result.tokenGradients) < 1e-6)
        #expect(relativeError(a.result.weightGradients, b.result.weightGradients) < 2e-6)
        #expect(firstBitDifference(a.result.rowOrigins, b.result.rowOrigins) == nil, "the experts get the same rows")
        #expect(a.statistics.rowsRouted == b.statistics.rowsRouted)
        #expect(a.statistics.uncompressedBytes == b.statistics.uncompressedBytes)
        #expect(b.statistics.rowsSent <= a.statistics.rowsSent)
      }
    }
  }

  @Test(arguments: [1, 2, 5])
  func oneExpertOfWeightOneReturnsTheInputBitForBit(ranks: Int) throws {
    try SimulatedCluster(ranks: ranks).run { fabric in
      let exchange = try ExpertExchange(
        fabric: fabric, layout: ExpertLayout(experts: 6, hidden: 7), options: .init(copies: .perRank))
      let count = 3 + 4 * fabric.rank
      let tokens = try randomBatch(rows: count, hidden: 7, seed: UInt64(fabric.rank))
      tokens.elements[0] = -0.0
      let routing = try Routing(
        topkIndices: (0..<count).map { Int32($0 * $0 % 6) }, topkWeights: Array(repeating: 1, count: count), topK: 1,
        experts: 6)
      let handle = try exchange.dispatch(tokens, routing)
      let y = try exchange.combine(handle.rows, handle)
      #expect(firstBitDifference(y.array, tokens.array) == nil)
    }
  }

  @Test func aTokenTravelsOnceToEachRank() throws {
    let statistics = try SimulatedCluster(ranks: 2).run { fabric in
      let exchange = try ExpertExchange(
        fabric: fabric, layout: ExpertLayout(experts: 8, hidden: 256), options: .init(copies: .perRank))
      // Experts 0 to 3 are on rank 0: three of the choices there, one on rank 1.
      let routing = try Routing(
        topkIndices: (0..<50).flatMap { _ in [0, 5, 2, 3] as [Int32] },
        topkWeights: Array(repeating: 0.25, count: 200), topK: 4, experts: 8)
      _ = try trainingStep(
        exchange, tokens: randomBatch(rows: 50, hidden: 256, seed: 1), routing: routing,
        dy: randomBatch(rows: 50, hidden: 256, seed: 2))
      return exchange.statistics
    }
    for (rank, layer) in statistics.enumerated() {
      #expect(layer.rowsRouted == 200)
      #expect(layer.rowsSent == 100)
      #expect(layer.tokensPerExpert == [50, 0, 50, 50, 0, 50, 0, 0])
      for kind in TransferKind.allCases {
        // What went to the other rank, one way or the other: 50 rows in either direction.
        #expect(layer[kind].uncompressedBytes == (rank == 0 ? 50 : 150) * 1024)
        #expect(layer[kind].wireBytes > 50 * 1024 && layer[kind].wireBytes < 50 * 1024 + 2000)
        #expect(layer[kind].localBytes == 50 * 1024)
      }
    }
  }

  /// Clusters of rows that serve several experts, against central differences in double precision.
  @Test(arguments: [(1, 1), (2, 1), (4, 1), (2, 2), (4, 2)], [ResidualCompensation.none, .identity])
  func backwardIsTheGradientOfTheForwardThatRan(
    nodes: (ranks: Int, size: Int), compensation: ResidualCompensation
  ) throws {
    let ranks = nodes.ranks
    let (hidden, experts, topK) = (6, 5, 3)
    let worst = try SimulatedCluster(ranks: ranks).run { fabric in
      let count = 14 + 3 * fabric.rank
      let exchange = try ExpertExchange(
        fabric: fabric, layout: ExpertLayout(experts: experts, hidden: hidden),
        options: .init(
          compression: .crossPolytope(.init(functions: 1, width: 4, rate: 0.5)), copies: .perNode(ranks: nodes.size),
          compensation: compensation))
      let tokens = try clusteredBatch(rows: count, hidden: hidden, noise: 0.3, seed: UInt64(fabric.rank + 7))
      let routing = try randomRouting(tokens: count, topK: topK, experts: experts, seed: UInt64(fabric.rank + 20))
      let dy = try randomBatch(rows: count, hidden: hidden, seed: UInt64(fabric.rank + 40))
      let step = try trainingStep(exchange, tokens: tokens, routing: routing, dy: dy)
      let handle = try exchange.dispatch(tokens, routing)
      #expect(handle.source.plan.rows < handle.source.plan.members, "the case must have clusters of several members")
      let lanes = handle.destinations
      let rowOfSlot = (0..<(count * topK)).map { handle.source.plan.rowOfSlot[$0] }
      let layout = exchange.layout

      func forward(_ x: [Double], _ w: [Double]) -> [Double] {
        let toy = ToyExperts()
        var y = [Double](repeating: 0, count: x.count)
        var members: [Int: [Int]] = [:]
        for slot in rowOfSlot.indices where rowOfSlot[slot] >= 0 { members[rowOfSlot[slot], default: []].append(slot) }
        func row(_ token: Int) -> [Double] { Array(x[(token * hidden)..<((token + 1) * hidden)]) }
        func slots(_ leader: Int) -> [Int] {
          (leader / topK * topK..<(leader / topK + 1) * topK).filter {
            routing.topkIndices[$0] >= 0
              && layout.rank(of: Int(routing.topkIndices[$0]), rankCount: ranks) / nodes.size
                == Int(lanes.topkIndices[leader])
          }
        }
        func total(_ leader: Int) -> Double { slots(leader).reduce(0) { $0 + w[$1] } }
        for leaders in members.values {
          var centroid = [Double](repeating: 0, count: hidden)
          for leader in leaders { for (d, value) in row(leader / topK).enumerated() { centroid[d] += value } }
          centroid = centroid.map { $0 / Double(leaders.count) }
          var output = [Double](repeating: 0, count: hidden)
          for leader in leaders {
            for slot in slots(leader) {
              let share = w[slot] / total(leader) / Double(leaders.count)
              let made = toy.forward(centroid, expert: Int(routing.topkIndices[slot]))
              for d in 0..<hidden { output[d] += share * made[d] }
            }
          }
          for leader in leaders {
            let token = leader / topK
            for d in 0..<hidden {
              let residual = compensation == .identity ? x[token * hidden + d] - centroid[d] : 0
              y[token * hidden + d] += total(leader) * (output[d] + residual)
            }
          }
        }
        return y
      }
      func slope(_ values: [Double], _ f: ([Double]) -> [Double]) -> [Double] {
        values.indices.map { i in
          var (above, below) = (values, values)
          above[i] += 1e-5
          below[i] -= 1e-5
          return zip(zip(f(above), f(below)), dy.array).reduce(0) { $0 + ($1.0.0 - $1.0.1) / 2e-5 * Double($1.1) }
        }
      }
      let (x, w) = (tokens.array.map(Double.init), routing.topkWeights.map(Double.init))
      return [
        relativeError(step.y.map(Double.init), forward(x, w)),
        relativeError(step.tokenGradients.map(Double.init), slope(x) { forward($0, w) }),
        relativeError(step.weightGradients.map(Double.init), slope(w) { forward(x, $0) }),
      ]
    }
    for errors in worst { for error in errors { #expect(error < 1e-4) } }
  }

  @Test(arguments: [WireFormat.bf16, try .rotated(bits: 6), try .entropy(bits: 6)])
  func sharesTravelAsBFloat16BesideRoundedRows(wire: WireFormat) throws {
    let exact = try Self.step(ranks: 4, hidden: 32, experts: 8, topK: 4, options: .init(copies: .perRank))
    let coded = try Self.step(
      ranks: 4, hidden: 32, experts: 8, topK: 4, options: .init(copies: .perRank, wire: .init(wire)))
    for (a, b) in zip(exact, coded) where !a.result.y.isEmpty {
      #expect(relativeError(a.result.y, b.result.y) < 0.1)
      #expect(relativeError(a.result.weightGradients, b.result.weightGradients) < 0.1)
    }
  }

  @Test func aMapForEachExpertIsRefused() throws {
    let outcome = SimulatedCluster(ranks: 2).results { fabric in
      _ = try ExpertExchange(
        fabric: fabric, layout: ExpertLayout(experts: 4, hidden: 8),
        options: .init(compression: .lshMoE, copies: .perRank, compensation: .lowRank(2)))
    }
    for result in outcome {
      guard case .failure(let failure) = result, let error = failure as? CrosspointError else {
        Issue.record("accepted")
        continue
      }
      #expect(error.code == .invalidArgument && error.argument == "compensation")
    }
  }
}
