import CrosspointCore
import CrosspointTokens
import Glibc

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
    router.groupPrice = price > 0 ? GroupPrice(groups: groups, price: price) : nil
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
        for group in 0..<price.groups where !choice.isChosen(group) {
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
  /// `[groups × size]`: all scores, the first of a chosen group −1; behind them those of the chosen groups.
  private var scores: [Float]

  init(topK: Int, groups: Int, size: Int) {
    (self.topK, self.groups, self.size) = (topK, groups, size)
    scores = Array(repeating: 0, count: 2 * groups * size)
  }

  /// Whether it was made for such a router.
  func fits(_ topK: Int, _ groups: Int, _ experts: Int) -> Bool {
    (topK, groups, experts) == (self.topK, self.groups, self.groups * size)
  }

  mutating func choose(_ keys: UnsafeBufferPointer<Float>, isLogits: Bool, price: Float) {
    let (topK, groups, size) = (topK, groups, size)
    scores.withUnsafeMutableBufferPointer {
      let (scores, chosen) = ($0.baseAddress!, $0.baseAddress! + keys.count)
      let largest = isLogits ? keys.max() ?? 0 : 0
      for (expert, key) in keys.enumerated() { scores[expert] = isLogits ? exp(key - largest) : max(0, key) }
      var (count, mass) = (0, Float(0))
      let all = kernels.sum_of_largest(scores, keys.count, topK)
      for _ in 0..<groups {
        var (next, most) = (-1, -Float.infinity)
        for group in 0..<groups where scores[group * size] >= 0 {
          (chosen + count).update(from: scores + group * size, count: size)
          let reached = kernels.sum_of_largest(chosen, count + size, topK)
          if reached > most { (next, most) = (group, reached) }
        }
        guard next >= 0, count < topK || most - mass > price * all else { return }
        mass = most
        (chosen + count).update(from: scores + next * size, count: size)
        count += size
        scores[next * size] = -1
      }
    }
  }

  /// Whether a group was chosen.
  func isChosen(_ group: Int) -> Bool { scores[group * size] < 0 }
}
