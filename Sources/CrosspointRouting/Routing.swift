import CrosspointCore

/// Which experts each token goes to, and with what weight: what a router decides and an exchange carries out.
public struct Routing: Sendable, Equatable {
  /// Number of tokens T on this rank.
  public let tokens: Int
  /// Experts per token K.
  public let topK: Int
  /// Number of experts E over all ranks.
  public let experts: Int
  /// `[T × K]` row-major; −1 means "not sent".
  public let topkIndices: [Int32]
  /// `[T × K]` row-major; ignored where the index is −1.
  public let topkWeights: [Float]
  /// `[E]`: how many of this rank's (token, choice) pairs go to each expert.
  public let tokensPerExpert: [Int]

  /// Checks shapes and ranges and counts tokens per expert.
  /// - Throws: `invalidArgument` naming the first offending token.
  public init(topkIndices: [Int32], topkWeights: [Float], topK: Int, experts: Int) throws(CrosspointError) {
    func invalid(_ argument: String, _ message: String) -> CrosspointError {
      CrosspointError(.invalidArgument, operation: "Routing", argument: argument, message)
    }
    guard experts > 0 else { throw invalid("experts", "\(experts); at least one expert is needed") }
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
}
