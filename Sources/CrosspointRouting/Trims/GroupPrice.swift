import CrosspointCore

#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// Makes each token pay for every group of experts that it uses beyond the first, such as the experts of one rank: it
/// reaches few, and those that are worth a row of their own.
///
/// With S(G) the sum of the k largest scores (plus bias, not below 0; softmax of the biased logits under `topKThenSoftmax`)
/// among the experts of the groups G, groups are added one by one, each time the one that raises S most, as long as it
/// raises it by more than `price` times what all groups together would give. The k experts then come from them. A price of 0 leaves the choice as it is; from 1 on a token keeps
/// to one group, if that holds k experts.
///
/// [ours] DeepSeek-V3's limit (``GroupLimit``) gives every token the same number of groups. This one has the same mean
/// where most tokens have fewer, and those that lose most by it have more. S is submodular (the next group never adds more
/// than the last), so choosing greedily is choosing all that are worth their price.
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

  /// Sets the keys of all groups that are not worth their price to −∞, row by row.
  func mask(_ scratch: inout ChoiceScratch, _ price: GroupPrice) {
    if scratch.groups?.fits(topK, price.groups, experts) != true {
      scratch.groups = GroupChoice(topK: topK, groups: price.groups, size: experts / price.groups)
    }
    mask(&scratch.keys, price, &scratch.groups!)
  }

  private func mask(_ keys: inout [Float], _ price: GroupPrice, _ choice: inout GroupChoice) {
    let size = experts / price.groups
    for row in stride(from: 0, to: keys.count, by: experts) {
      keys.withUnsafeBufferPointer {
        let keys = UnsafeBufferPointer(rebasing: $0[row..<row + experts])
        choice.choose(keys, isLogits: scoring == .topKThenSoftmax, price: Float(price.price))
      }
      for group in 0..<price.groups where !choice.isChosen[group] {
        for index in row + group * size..<row + (group + 1) * size { keys[index] = -.infinity }
      }
    }
  }
}

/// Chooses one token's groups after another, in the same memory.
struct GroupChoice: Sendable {
  let topK: Int
  let groups: Int
  let size: Int
  private(set) var isChosen: [Bool]
  /// `[groups × depth]`: each group's best experts by falling key.
  private var best: [Int]
  private let depth: Int
  /// The best experts of the chosen groups, by falling key.
  private var kept: [Int] = []
  private var merged: [Int] = []
  /// `[E]`: what each expert adds.
  private var worth: [Float]

  init(topK: Int, groups: Int, size: Int) {
    self.topK = topK
    self.groups = groups
    self.size = size
    depth = min(topK, size)
    isChosen = Array(repeating: false, count: groups)
    best = Array(repeating: 0, count: groups * depth)
    worth = Array(repeating: 0, count: groups * size)
    kept.reserveCapacity(topK)
    merged.reserveCapacity(topK)
  }

  /// Whether it was made for such a router.
  func fits(_ topK: Int, _ groups: Int, _ experts: Int) -> Bool {
    (topK, groups, experts) == (self.topK, self.groups, worth.count)
  }

  mutating func choose(_ keys: UnsafeBufferPointer<Float>, isLogits: Bool, price: Float) {
    let largest = keys.max() ?? 0
    for expert in keys.indices { worth[expert] = isLogits ? exp(keys[expert] - largest) : max(0, keys[expert]) }
    for group in 0..<groups {
      rank(keys, group)
      isChosen[group] = false
    }
    kept.removeAll(keepingCapacity: true)
    for group in 0..<groups {
      merge(group, keys)
      swap(&kept, &merged)
    }
    let all = sum(kept)
    kept.removeAll(keepingCapacity: true)
    var mass: Float = 0
    for _ in 0..<groups {
      var (next, most) = (-1, -Float.infinity)
      for group in 0..<groups where !isChosen[group] {
        merge(group, keys)
        let reached = sum(merged)
        if reached > most { (next, most) = (group, reached) }
      }
      guard next >= 0, kept.count < topK || most - mass > price * all else { return }
      merge(next, keys)
      swap(&kept, &merged)
      isChosen[next] = true
      mass = most
    }
  }

  /// Orders a group's best experts.
  private mutating func rank(_ keys: UnsafeBufferPointer<Float>, _ group: Int) {
    let start = group * depth
    for (count, expert) in (group * size..<(group + 1) * size).enumerated() {
      var place = min(count, depth)
      if place == depth && keys[expert] <= keys[best[start + depth - 1]] { continue }
      while place > 0 && keys[expert] > keys[best[start + place - 1]] {
        place -= 1
        if place + 1 < depth { best[start + place + 1] = best[start + place] }
      }
      best[start + place] = expert
    }
  }

  /// What would be kept with one more group.
  private mutating func merge(_ group: Int, _ keys: UnsafeBufferPointer<Float>) {
    merged.removeAll(keepingCapacity: true)
    var (i, j) = (0, group * depth)
    let end = j + depth
    while merged.count < topK && (i < kept.count || j < end) {
      if j == end || (i < kept.count && keys[kept[i]] >= keys[best[j]]) {
        merged.append(kept[i])
        i += 1
      } else {
        merged.append(best[j])
        j += 1
      }
    }
  }

  private func sum(_ experts: [Int]) -> Float { experts.reduce(0) { $0 + worth[$1] } }
}
