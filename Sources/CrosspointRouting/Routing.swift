import CrosspointCore

/// Which experts each token goes to, and with what weight: what a router decides and an exchange carries out.
public struct Routing: Sendable, Equatable {
  /// Number of tokens T on this rank.
  public private(set) var tokens: Int
  /// Experts per token K.
  public private(set) var topK: Int
  /// Number of experts E over all ranks.
  public private(set) var experts: Int
  /// `[T × K]` row-major; −1 means "not sent".
  public internal(set) var topkIndices: [Int32]
  /// `[T × K]` row-major; ignored where the index is −1.
  public internal(set) var topkWeights: [Float]
  /// `[E]`: how many of this rank's (token, choice) pairs go to each expert.
  public internal(set) var tokensPerExpert: [Int]

  /// Checks shapes and ranges and counts tokens per expert.
  /// - Throws: `invalidArgument` naming the first offending token.
  public init(topkIndices: [Int32], topkWeights: [Float], topK: Int, experts: Int) throws(CrosspointError) {
    func invalid(_ argument: String, _ message: String) -> CrosspointError {
      CrosspointError(.invalidArgument, operation: "Routing", argument: argument, message)
    }
    try Extent.require(experts, in: Extent.experts, operation: "Routing", argument: "experts")
    guard topK > 0, topK <= experts else { throw invalid("topK", "\(topK) of \(experts) experts") }
    guard topkIndices.count.isMultiple(of: topK) else {
      throw invalid("topkIndices", "\(topkIndices.count) entries are no multiple of top-\(topK)")
    }
    guard topkWeights.count == topkIndices.count else {
      throw invalid("topkWeights", "\(topkWeights.count) weights for \(topkIndices.count) indices")
    }
    var counts = [Int](repeating: 0, count: experts)
    for (slot, expert) in topkIndices.enumerated() where expert != -1 {
      guard expert >= 0, expert < experts else {
        throw invalid("topkIndices", "token \(slot / topK) names expert \(expert) of \(experts)")
      }
      counts[Int(expert)] += 1
    }
    tokens = topkIndices.count / topK
    self.topK = topK
    self.experts = experts
    self.topkIndices = topkIndices
    self.topkWeights = topkWeights
    tokensPerExpert = counts
  }

  /// How many of `groups` groups of consecutive experts each token uses, summed over tokens.
  package func groupsUsed(of groups: Int) -> Int {
    let size = max(1, experts / groups)
    var used = 0
    for (slot, expert) in topkIndices.enumerated() where expert >= 0 {
      let first = Int(expert) / size * size
      let earlier = topkIndices[slot - slot % topK..<slot]
      if !earlier.contains(where: { (first..<first + size).contains(Int($0)) }) { used += 1 }
    }
    return used
  }

  /// No tokens at all.
  package static let none = Routing()

  private init() { (tokens, topK, experts, topkIndices, topkWeights, tokensPerExpert) = (0, 1, 1, [], [], [0]) }

  /// Becomes a copy of another, in the memory that it has.
  package mutating func copy(_ other: Routing) {
    (tokens, topK, experts) = (other.tokens, other.topK, other.experts)
    topkIndices.refill(with: other.topkIndices)
    topkWeights.refill(with: other.topkWeights)
    tokensPerExpert.refill(with: other.tokensPerExpert)
  }

  /// Becomes a routing of tokens that are not sent, in the memory that it has.
  package mutating func begin(tokens: Int, topK: Int, experts: Int) {
    (self.tokens, self.topK, self.experts) = (tokens, topK, experts)
    topkIndices.refill(with: -1, count: tokens * topK)
    topkWeights.refill(with: 0, count: tokens * topK)
    tokensPerExpert.refill(with: 0, count: experts)
  }

  /// Sends a slot that is not sent yet.
  package mutating func choose(_ slot: Int, expert: Int, weight: Float) {
    topkIndices[slot] = Int32(expert)
    topkWeights[slot] = weight
    tokensPerExpert[expert] += 1
  }

  /// Becomes a choice without weights and counts, in the memory that it has: these are the caller's to fill in.
  mutating func begin(_ chosen: [Int32], topK: Int, experts: Int) {
    (tokens, self.topK, self.experts) = (chosen.count / topK, topK, experts)
    topkIndices.refill(with: chosen)
    topkWeights.refill(with: 0, count: chosen.count)
    tokensPerExpert.refill(with: 0, count: experts)
  }

  /// Becomes the routing of groups of experts, in the memory that it has: the first of a token's choices within a group is
  /// the group's, with the sum of the magnitudes of all its weights there (1 where they are all zero); the others are not
  /// sent.
  package mutating func regroup(_ routing: Routing, groups: Int, groupOf: (Int) -> Int) {
    tokens = routing.tokens
    topK = routing.topK
    experts = groups
    topkIndices.refill(with: -1, count: routing.topkIndices.count)
    topkWeights.refill(with: 0, count: routing.topkIndices.count)
    tokensPerExpert.refill(with: 0, count: groups)
    for (slot, expert) in routing.topkIndices.enumerated() where expert >= 0 {
      let group = Int32(groupOf(Int(expert)))
      let leader = (slot - slot % topK..<slot).first { topkIndices[$0] == group } ?? slot
      if leader == slot {
        topkIndices[slot] = group
        tokensPerExpert[Int(group)] += 1
      }
      topkWeights[leader] += routing.topkWeights[slot].magnitude
    }
    for slot in topkWeights.indices where topkIndices[slot] >= 0 && topkWeights[slot] == 0 { topkWeights[slot] = 1 }
  }
}
