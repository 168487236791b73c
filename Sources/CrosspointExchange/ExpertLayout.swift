import CrosspointCore

/// Which experts exist, how wide a token is, and which rank holds which expert.
///
/// Experts are laid out in contiguous blocks: with E experts on R ranks, the first `E mod R` ranks hold one more than the
/// others. A rank may hold none.
public struct ExpertLayout: Hashable, Sendable {
  /// Number of experts E over all ranks.
  public let experts: Int
  /// Floats per token.
  public let hidden: Int

  /// - Throws: `invalidArgument` unless `experts` is in 1…2²⁰ and `hidden` in 1…2²⁴.
  public init(experts: Int, hidden: Int) throws(CrosspointError) {
    try Extent.require(experts, in: Extent.experts, operation: "ExpertLayout", argument: "experts")
    try Extent.require(hidden, in: Extent.hidden, operation: "ExpertLayout", argument: "hidden")
    self.experts = experts
    self.hidden = hidden
  }

  /// The experts that `rank` of `rankCount` holds.
  public func experts(of rank: Int, rankCount: Int) -> Range<Int> {
    let (share, extra) = experts.quotientAndRemainder(dividingBy: rankCount)
    let start = rank * share + min(rank, extra)
    return start..<(start + share + (rank < extra ? 1 : 0))
  }

  /// The most experts that one of `rankCount` ranks holds: the first has as many as any.
  func mostExperts(rankCount: Int) -> Int { experts(of: 0, rankCount: rankCount).count }

  /// The rank that holds `expert`.
  public func rank(of expert: Int, rankCount: Int) -> Int {
    let (share, extra) = experts.quotientAndRemainder(dividingBy: rankCount)
    let boundary = extra * (share + 1)
    return expert < boundary ? expert / (share + 1) : extra + (expert - boundary) / share
  }
}
