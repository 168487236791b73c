import CrosspointCompression
import CrosspointCore
import CrosspointFabric
import CrosspointRouting
import CrosspointTestSupport
import CrosspointTokens
import Testing

@testable import CrosspointExchange

/// The forward pass as an equation, in double precision, with the bucket map that the exchange chose: what the exchange must
/// agree with, and what central differences are taken of.
private struct Oracle {
  let hidden: Int
  let routing: Routing
  /// Row of each slot, −1 where nothing was sent.
  let rowOfSlot: [Int]
  let kind: ResidualCompensation

  /// A (x − c) with the expert's parameters.
  func compensate(_ residual: [Double], _ expert: Int, _ parameters: [Double]) -> [Double] {
    switch kind {
    case .none: return residual.map { _ in 0 }
    case .identity: return residual
    case .lowRank(let rank):
      var sum = residual
      for k in 0..<rank {
        let u = (expert * 2 * rank + k) * hidden
        let v = (expert * 2 * rank + rank + k) * hidden
        let inner = residual.indices.reduce(0.0) { $0 + parameters[v + $1] * residual[$1] }
        for d in sum.indices { sum[d] += inner * parameters[u + d] }
      }
      return sum
    }
  }

  func forward(_ x: [Double], _ weights: [Double], _ compensation: [Double]) -> [Double] {
    let experts = ToyExperts()
    var members: [Int: [Int]] = [:]
    for slot in rowOfSlot.indices where rowOfSlot[slot] >= 0 { members[rowOfSlot[slot], default: []].append(slot) }
    var y = [Double](repeating: 0, count: x.count)
    func row(_ token: Int) -> [Double] { Array(x[(token * hidden)..<((token + 1) * hidden)]) }
    for slots in members.values {
      let expert = Int(routing.topkIndices[slots[0]])
      var centroid = [Double](repeating: 0, count: hidden)
      for slot in slots { for (d, value) in row(slot / routing.topK).enumerated() { centroid[d] += value } }
      centroid = centroid.map { $0 / Double(slots.count) }
      let output = experts.forward(centroid, expert: expert)
      for slot in slots {
        let token = slot / routing.topK
        let residual = compensate(zip(row(token), centroid).map { $0 - $1 }, expert, compensation)
        for d in 0..<hidden { y[token * hidden + d] += weights[slot] * (output[d] + residual[d]) }
      }
    }
    return y
  }

  /// ⟨dy, y⟩ as a function of one argument at a time.
  func differences(
    _ x: [Double], _ weights: [Double], _ compensation: [Double], dy: [Double]
  ) -> (x: [Double], weights: [Double], compensation: [Double]) {
    func loss(_ x: [Double], _ weights: [Double], _ compensation: [Double]) -> Double {
      zip(forward(x, weights, compensation), dy).reduce(0) { $0 + $1.0 * $1.1 }
    }
    func slope(_ values: [Double], _ f: ([Double]) -> Double) -> [Double] {
      values.indices.map { i in
        var (above, below) = (values, values)
        above[i] += 1e-5
        below[i] -= 1e-5
        return (f(above) - f(below)) / 2e-5
      }
    }
    return (
      slope(x) { loss($0, weights, compensation) }, slope(weights) { loss(x, $0, compensation) },
      slope(compensation) { loss(x, weights, $0) }
    )
  }
}

@Suite struct AdjointTests {
  static let cases: [(ranks: Int, compensation: ResidualCompensation?)] = [1, 2, 4].flatMap { ranks in
    [nil, ResidualCompensation.none, .identity, .lowRank(3)].map { (ranks, $0) }
  }

  @Test(arguments: cases)
  func backwardIsTheGradientOfTheForwardThatRan(ranks: Int, compensation: ResidualCompensation?) throws {
    let (hidden, experts, topK) = (12, 5, 2)
    let worst = try SimulatedCluster(ranks: ranks).run { fabric in
      let count = 14 + 3 * fabric.rank
      let options = ExchangeOptions(
        compression: compensation == nil
          ? .off : .crossPolytope(.init(functions: 1, width: 4, rate: 0.5, refinements: ranks == 2 ? 1 : 0)),
        compensation: compensation ?? .identity)
      let exchange = try ExpertExchange(
        fabric: fabric, layout: ExpertLayout(experts: experts, hidden: hidden), options: options)
      let parameters = randomFloats(exchange.compensator.parameters.count, seed: 17)
      exchange.compensator.parameters = parameters
      let tokens = try clusteredBatch(rows: count, hidden: hidden, noise: 0.3, seed: UInt64(fabric.rank + 7))
      let routing = try randomRouting(tokens: count, topK: topK, experts: experts, seed: UInt64(fabric.rank + 20))
      let dy = try randomBatch(rows: count, hidden: hidden, seed: UInt64(fabric.rank + 40))
      let step = try trainingStep(exchange, tokens: tokens, routing: routing, dy: dy)

      // The same clusters again, to read the bucket map.
      let handle = try exchange.dispatch(tokens, routing)
      let oracle = Oracle(
        hidden: hidden, routing: routing,
        rowOfSlot: (0..<(count * topK)).map { handle.source.plan.rowOfSlot[$0] },
        kind: compensation ?? .none)
      let x = tokens.array.map(Double.init)
      let weights = routing.topkWeights.map(Double.init)
      let expected = oracle.differences(
        x, weights, parameters.map(Double.init), dy: dy.array.map(Double.init))
      if compensation != nil {
        #expect(handle.source.plan.rows < handle.source.plan.members, "the case must have clusters of several members")
      }
      return [
        relativeError(step.y.map(Double.init), oracle.forward(x, weights, parameters.map(Double.init))),
        relativeError(step.tokenGradients.map(Double.init), expected.x),
        relativeError(step.weightGradients.map(Double.init), expected.weights),
        relativeError(step.compensationGradients.map(Double.init), expected.compensation),
      ]
    }
    for errors in worst { for error in errors { #expect(error < 1e-4) } }
  }
}
