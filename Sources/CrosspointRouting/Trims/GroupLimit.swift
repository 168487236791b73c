import CrosspointCore

/// Restricts each token to the experts of a few groups, such as those of one node: tokens reach fewer nodes.
///
/// The score of a group is the sum of its two best keys (scores plus bias; logits plus bias under `topKThenSoftmax`); the
/// best groups are kept, the lowest index among equals, and the k experts come from them. Source: DeepSeek-V3 (arXiv
/// 2412.19437, section 2.1.2).
package struct GroupLimit: Sendable, Hashable {
  /// Groups of equally many consecutive experts.
  package let groups: Int
  /// Groups that a token may use.
  package let kept: Int
}

extension TopKRouter {
  /// This router with each token held to `kept` of `groups` groups of consecutive experts.
  /// - Throws: `invalidArgument` if experts do not divide into the groups, or the kept ones hold fewer than K.
  public func limited(toGroups kept: Int, of groups: Int) throws(CrosspointError) -> TopKRouter {
    try requireEqualGroups(groups, "GroupLimit")
    guard kept > 0, kept <= groups, kept * (experts / groups) >= topK else {
      throw Self.invalid(
        "GroupLimit", "kept", "\(kept) of \(groups) groups with \(experts / groups) experts each, for top-\(topK)")
    }
    var router = self
    router.groupPrice = nil
    router.groupLimit = GroupLimit(groups: groups, kept: kept)
    return router
  }

  /// - Throws: `invalidArgument` if experts do not divide into so many groups.
  func requireEqualGroups(_ groups: Int, _ operation: String) throws(CrosspointError) {
    guard groups > 0, experts.isMultiple(of: groups) else {
      throw Self.invalid(operation, "groups", "\(experts) experts do not form \(groups) equal groups")
    }
  }

  /// Sets the keys of all but the best groups to −∞, row by row.
  func mask(_ scratch: inout ChoiceScratch, _ limit: GroupLimit) {
    scratch.best.refill(with: 0, count: limit.groups)
    mask(&scratch.keys, limit, scores: &scratch.best)
  }

  private func mask(_ keys: inout [Float], _ limit: GroupLimit, scores: inout [Float]) {
    let size = experts / limit.groups
    for row in stride(from: 0, to: keys.count, by: experts) {
      for group in 0..<limit.groups {
        var (first, second) = (-Float.infinity, -Float.infinity)
        for key in keys[row + group * size..<row + (group + 1) * size] {
          if key > first { (first, second) = (key, first) } else if key > second { second = key }
        }
        scores[group] = size > 1 ? first + second : first
      }
      for group in 0..<limit.groups {
        var rank = 0
        for other in 0..<limit.groups
        where scores[other] > scores[group] || (other < group && scores[other] == scores[group]) {
          rank += 1
        }
        guard rank >= limit.kept else { continue }
        for index in row + group * size..<row + (group + 1) * size { keys[index] = -.infinity }
      }
    }
  }
}
