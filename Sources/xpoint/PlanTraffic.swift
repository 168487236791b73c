import Crosspoint
import CrosspointCore
import Foundation

/// Ranks and a layer on paper.
struct PlanShape: Sendable {
  var nodes: Int
  var ranksPerNode: Int
  /// Of each rank.
  var tokens: Int
  var hidden: Int
  var topK: Int
  var experts: Int
  /// Experts are wanted in proportion to 1 / place^skew, their places drawn at random; 0: all alike.
  var skew: Double

  var ranks: Int { nodes * ranksPerNode }
}

/// Rows of a dispatch that arrive at the rank that gets most; a combine takes as many back.
struct PlanTraffic {
  /// Rows from other nodes.
  var between = 0.0
  /// Rows from other ranks of its node.
  var within = 0.0
  /// Rows that copies per node hand on in shared memory, in fp32.
  var handed = 0.0
  /// Rows of the experts: one for each token and expert.
  var pairs = 0.0

  /// The most tokens of a rank whose choices are drawn.
  private static let sample = 2048

  /// - Parameter copies: as the exchange takes it, but for automatic.
  init(_ shape: PlanShape, _ copies: ExchangeOptions.Copies) throws(CrosspointError) {
    let choices = Self.choices(shape)
    let tokens = choices.count / shape.topK
    let scale = Double(shape.tokens) / Double(tokens)
    let layout = try ExpertLayout(experts: shape.experts, hidden: shape.hidden)
    let rankOf = (0..<shape.experts).map { layout.rank(of: $0, rankCount: shape.ranks) }
    // What one rank's tokens send to each rank: rows for its experts, copies to it, copies to its node.
    var (pairsTo, copiesTo) = ([Double](repeating: 0, count: shape.ranks), [Double](repeating: 0, count: shape.ranks))
    var copiesToNode = [Double](repeating: 0, count: shape.nodes)
    for token in 0..<tokens {
      let ranks = choices[token * shape.topK..<(token + 1) * shape.topK].map { rankOf[$0] }
      for rank in ranks { pairsTo[rank] += scale }
      for rank in Set(ranks) { copiesTo[rank] += scale }
      for node in Set(ranks.map { $0 / shape.ranksPerNode }) { copiesToNode[node] += scale }
    }
    let (far, near) = (Double(shape.ranks - shape.ranksPerNode), Double(shape.ranksPerNode - 1))
    pairs = Double(shape.ranks) * pairsTo.max()!
    switch copies {
    case .perExpert: (between, within) = (far * pairsTo.max()!, near * pairsTo.max()!)
    case .perRank: (between, within) = (far * copiesTo.max()!, near * copiesTo.max()!)
    case .perNode:
      // From those with its place in the other nodes; it hands them on within its own.
      between = Double(shape.nodes - 1) * copiesToNode.max()!
      handed = pairs * near / Double(shape.ranksPerNode)
    case .automatic: preconditionFailure("each kind of copies has a line of its own")
    }
  }

  /// Experts of some tokens, `topK` different ones for each: those of the largest log-weight plus Gumbel noise.
  private static func choices(_ shape: PlanShape) -> [Int] {
    var generator = SplitMix64(seed: 0)
    let order = (0..<shape.experts).map { (expert: $0, key: generator.nextUnit()) }.sorted { $0.key < $1.key }
    var logWeights = [Double](repeating: 0, count: shape.experts)
    for (place, entry) in order.enumerated() { logWeights[entry.expert] = -shape.skew * log(Double(place + 1)) }
    let tokens = max(64, min(sample, shape.tokens, (1 << 21) / shape.experts))
    return (0..<tokens).flatMap { _ in
      let keys = logWeights.map { weight in
        weight - log(-log(min(max(Double(generator.nextUnit()), 1e-9), 1 - 1e-9)))
      }
      return keys.indices.sorted { keys[$0] > keys[$1] }.prefix(shape.topK)
    }
  }
}
