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

  /// Numbers drawn for a sample of tokens, one for each token and expert, and the most tokens.
  private static let (draws, mostTokens) = (1 << 21, 2048)

  /// - Parameter copies: as the exchange takes it, but for automatic.
  init(_ shape: PlanShape, _ copies: ExchangeOptions.Copies) throws(CrosspointError) {
    let weights = Self.weights(shape)
    let layout = try ExpertLayout(experts: shape.experts, hidden: shape.hidden)
    let rankOf = (0..<shape.experts).map { layout.rank(of: $0, rankCount: shape.ranks) }
    // Of a token: ranks and nodes that it reaches, on average over a sample.
    var (ranksReached, nodesReached) = (0, 0)
    let sample = min(Self.mostTokens, Self.draws / shape.experts)
    Self.draw(sample, shape, weights) { choices in
      let ranks = Set(choices.map { rankOf[$0] })
      ranksReached += ranks.count
      nodesReached += Set(ranks.map { $0 / shape.ranksPerNode }).count
    }
    let perToken = (
      ranks: Double(ranksReached) / Double(sample), nodes: Double(nodesReached) / Double(sample)
    )

    let busiest = Busiest(shape, weights, rankOf)
    // Rows of one rank's tokens to the rank, or the node, that gets most.
    let tokens = Double(shape.tokens)
    let toRank = tokens * Double(shape.topK) / Double(shape.ranks) * busiest.rows
    let copiesToRank = tokens * perToken.ranks / Double(shape.ranks) * busiest.rank
    let copiesToNode = tokens * perToken.nodes / Double(shape.nodes) * busiest.node
    let (far, near) = (Double(shape.ranks - shape.ranksPerNode), Double(shape.ranksPerNode - 1))
    pairs = Double(shape.ranks) * toRank
    switch copies {
    case .perExpert: (between, within) = (far * toRank, near * toRank)
    case .perRank: (between, within) = (far * copiesToRank, near * copiesToRank)
    case .perNode:
      // From those with its place in the other nodes; it hands them on within its own.
      between = Double(shape.nodes - 1) * copiesToNode
      handed = pairs * near / Double(shape.ranksPerNode)
    case .automatic: preconditionFailure("each kind of copies has a line of its own")
    }
  }

  /// How unequally experts are wanted.
  private static func weights(_ shape: PlanShape) -> [Double] {
    var generator = SplitMix64(seed: 0)
    let order = (0..<shape.experts).map { (expert: $0, key: generator.nextUnit()) }.sorted { $0.key < $1.key }
    var weights = [Double](repeating: 0, count: shape.experts)
    for (place, entry) in order.enumerated() { weights[entry.expert] = pow(Double(place + 1), -shape.skew) }
    return weights
  }

  /// Calls `body` with the experts of each token of a sample, `topK` different ones: those that come first if each comes after
  /// an exponential time at the rate of its weight.
  private static func draw(
    _ sample: Int, _ shape: PlanShape, _ weights: [Double], _ body: (_ choices: ArraySlice<Int>) -> Void
  ) {
    var generator = SplitMix64(seed: 1)
    for _ in 0..<sample {
      let times = weights.map { -log(max(Double(generator.nextUnit()), 1e-12)) / $0 }
      body(times.indices.sorted { times[$0] < times[$1] }.prefix(shape.topK))
    }
  }
}

/// How much more the rank, or node, gets that gets most than one does on average: of rows, of copies to a rank, of copies to a
/// node.
///
/// All ranks' tokens together choose an expert of weight w with probability 1 − exp(−λw), nearly: λ is the time after which
/// `topK` experts have come on average.
private struct Busiest {
  var (rows, rank, node) = (1.0, 1.0, 1.0)

  init(_ shape: PlanShape, _ weights: [Double], _ rankOf: [Int]) {
    // All of them come in the end.
    var low = Double.greatestFiniteMagnitude
    if shape.topK < shape.experts {
      var high = 1.0
      low = 0
      func chosen(_ time: Double) -> Double { weights.reduce(0) { $0 + 1 - exp(-time * $1) } }
      while chosen(high) < Double(shape.topK) { high *= 2 }
      for _ in 0..<50 {
        let middle = (low + high) / 2
        if chosen(middle) < Double(shape.topK) { low = middle } else { high = middle }
      }
    }
    var rows = [Double](repeating: 0, count: shape.ranks)
    var (ofRank, ofNode) = (rows, [Double](repeating: 0, count: shape.nodes))
    for (weight, rank) in zip(weights, rankOf) {
      rows[rank] += 1 - exp(-low * weight)
      ofRank[rank] += weight
      ofNode[rank / shape.ranksPerNode] += weight
    }
    func factor(_ loads: [Double]) -> Double { loads.max()! * Double(loads.count) / loads.reduce(0, +) }
    self.rows = factor(rows)
    self.rank = factor(ofRank.map { 1 - exp(-low * $0) })
    self.node = factor(ofNode.map { 1 - exp(-low * $0) })
  }
}
