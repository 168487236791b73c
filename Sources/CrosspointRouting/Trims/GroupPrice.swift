import CrosspointCore
import CrosspointTokens

#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// Makes each token pay for every group of experts that it uses beyond the first, such as the experts of one rank: it
/// reaches few, and those that add enough to pay for a row of their own.
///
/// With S(G) the sum of the k largest scores (plus bias, not below 0; softmax of the biased logits under `topKThenSoftmax`)
/// among the experts of the groups G, groups are added one by one, each time the one that raises S most, as long as it
/// raises it by more than `price` times what all groups together would give. The k experts then come from them. A price of
/// 0 leaves the choice as it is; from 1 on a token keeps to one group, if that holds k experts.
///
/// [ours] DeepSeek-V3's limit (``GroupLimit``) gives every token the same number of groups. This one has the same mean
/// where most tokens have fewer, and those that lose most by it have more. S is submodular (the next group never adds more
/// than the last), so choosing greedily is choosing all that add more than their price.
package struct GroupPrice: Sendable, Hashable {
  /// Groups of equally many consecutive experts.
  package let groups: Int
  /// Share of the scores that one more group must add.
  package let price: Double
}

extension TopKRouter {
  /// This router with each token paying for groups of consecutive experts, instead of any limit of groups.
  ///
  /// - Throws: `invalidArgument` if experts do not divide into the groups, or for a price that is not in 0…1.
  public func priced(_ price: Double, perGroupOf groups: Int) throws(CrosspointError) -> TopKRouter {
    try requireEqualGroups(groups, "GroupPrice")
    guard price >= 0, price <= 1 else { throw Self.invalid("GroupPrice", "price", "\(price) is not in 0…1") }
    var router = self
    router.groupLimit = nil
    router.groupPrice = GroupPrice(groups: groups, price: price)
    return router
  }

  /// Sets the keys of all groups that add less than their price to −∞, row by row.
  func mask(_ scratch: inout ChoiceScratch, _ price: GroupPrice) {
    if scratch.groups?.fits(topK, price.groups, experts) != true {
      scratch.groups = GroupChoice(topK: topK, groups: price.groups, size: experts / price.groups)
    }
    mask(&scratch.keys, price, &scratch.groups!)
  }

  private func mask(_ keys: inout [Float], _ price: GroupPrice, _ choice: inout GroupChoice) {
    let size = experts / price.groups
    keys.withUnsafeMutableBufferPointer { keys in
      for row in stride(from: 0, to: keys.count, by: experts) {
        let row = UnsafeMutableBufferPointer(rebasing: keys[row..<row + experts])
        choice.choose(
          UnsafeBufferPointer(row), isLogits: scoring == .topKThenSoftmax, price: Float(price.price))
        for group in 0..<price.groups where !choice.isChosen[group] {
          row[group * size..<(group + 1) * size].update(repeating: -.infinity)
        }
      }
    }
  }
}

/// Chooses one token's groups after another, in the same memory.
struct GroupChoice: Sendable {
  private let topK: Int
  private let groups: Int
  private let size: Int
  private(set) var isChosen: [Bool]
  /// `[groups × size]`: all scores; behind them those of the chosen groups.
  private var scores: [Float]

  init(topK: Int, groups: Int, size: Int) {
    (self.topK, self.groups, self.size) = (topK, groups, size)
    isChosen = Array(repeating: false, count: groups)
    scores = Array(repeating: 0, count: 2 * groups * size)
  }

  /// Whether it was made for such a router.
  func fits(_ topK: Int, _ groups: Int, _ experts: Int) -> Bool {
    (topK, groups, experts) == (self.topK, self.groups, self.groups * size)
  }

  mutating func choose(_ keys: UnsafeBufferPointer<Float>, isLogits: Bool, price: Float) {
    for group in 0..<groups { isChosen[group] = false }
    let largest = isLogits ? keys.max() ?? 0 : 0
    for (expert, key) in keys.enumerated() { scores[expert] = isLogits ? exp(key - largest) : max(0, key) }
    var (count, mass) = (0, Float(0))
    let all = sum(of: 0..<keys.count)
    for _ in 0..<groups {
      var (next, most) = (-1, -Float.infinity)
      for group in 0..<groups where !isChosen[group] {
        let reached = sum(adding: group, to: count)
        if reached > most { (next, most) = (group, reached) }
      }
      guard next >= 0, count < topK || most - mass > price * all else { return }
      isChosen[next] = true
      mass = most
      place(next, behind: count)
      count += size
    }
  }

  /// The sum of the k largest scores of so many chosen experts and one more group.
  private mutating func sum(adding group: Int, to count: Int) -> Float {
    place(group, behind: count)
    return sum(of: groups * size..<groups * size + count + size)
  }

  /// Copies a group's scores behind those of so many chosen experts.
  private mutating func place(_ group: Int, behind count: Int) {
    scores.withUnsafeMutableBufferPointer {
      let all = $0.baseAddress!
      (all + groups * size + count).update(from: all + group * size, count: size)
    }
  }

  private func sum(of range: Range<Int>) -> Float {
    scores[range].withUnsafeBufferPointer { kernels.sum_of_largest($0.baseAddress!, $0.count, topK) }
  }
}
