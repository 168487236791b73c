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

/// Chooses one token's groups after another, in the same memory. It needs scores alone, by falling size: which expert has
/// which does not matter to a sum.
struct GroupChoice: Sendable {
  private let topK: Int
  private let groups: Int
  private let size: Int
  /// Scores of a group that can be among the k largest.
  private let depth: Int
  private(set) var isChosen: [Bool]
  /// `[groups × depth]`: the largest scores of each group; behind them `[topK]`, those of the chosen groups, and `[topK]`
  /// more of room.
  private var scores: [Float]

  init(topK: Int, groups: Int, size: Int) {
    self.topK = topK
    self.groups = groups
    self.size = size
    depth = min(topK, size)
    isChosen = Array(repeating: false, count: groups)
    scores = Array(repeating: 0, count: groups * depth + 2 * topK)
  }

  /// Whether it was made for such a router.
  func fits(_ topK: Int, _ groups: Int, _ experts: Int) -> Bool {
    (topK, groups, experts) == (self.topK, self.groups, self.groups * size)
  }

  mutating func choose(_ keys: UnsafeBufferPointer<Float>, isLogits: Bool, price: Float) {
    let (topK, groups, size, depth) = (topK, groups, size, depth)
    // Out of self, which the closure must not touch; no copy is made.
    var isChosen: [Bool] = []
    swap(&isChosen, &self.isChosen)
    defer { swap(&isChosen, &self.isChosen) }
    for group in 0..<groups { isChosen[group] = false }
    scores.withUnsafeMutableBufferPointer { scores in
      let best = scores.baseAddress!
      var (kept, merged) = (best + groups * depth, best + groups * depth + topK)
      let largest = keys.max() ?? 0
      for group in 0..<groups {
        for count in 0..<size {
          let key = keys[group * size + count]
          Self.insert(
            isLogits ? exp(key - largest) : max(0, key), into: best + group * depth, min(count, depth), of: depth)
        }
      }
      var count = 0
      var all: Float = 0
      for group in 0..<groups {
        (count, all) = Self.merge(kept, count, best + group * depth, depth, topK, into: merged)
        swap(&kept, &merged)
      }
      count = 0
      var mass: Float = 0
      for _ in 0..<groups {
        var (next, most) = (-1, -Float.infinity)
        for group in 0..<groups where !isChosen[group] {
          let reached = Self.merge(kept, count, best + group * depth, depth, topK, into: merged).sum
          if reached > most { (next, most) = (group, reached) }
        }
        guard next >= 0, count < topK || most - mass > price * all else { return }
        (count, mass) = Self.merge(kept, count, best + next * depth, depth, topK, into: merged)
        swap(&kept, &merged)
        isChosen[next] = true
      }
    }
  }

  /// Adds a score to `count` in falling order, of which `capacity` are kept.
  @inline(__always)
  private static func insert(_ score: Float, into best: UnsafeMutablePointer<Float>, _ count: Int, of capacity: Int) {
    var place = count
    if place == capacity {
      guard score > best[capacity - 1] else { return }
      place -= 1
    }
    while place > 0, score > best[place - 1] {
      best[place] = best[place - 1]
      place -= 1
    }
    best[place] = score
  }

  /// The largest of two falling sequences, at most `capacity`; returns how many, and their sum from the largest on.
  @inline(__always)
  private static func merge(
    _ a: UnsafePointer<Float>, _ aCount: Int, _ b: UnsafePointer<Float>, _ bCount: Int, _ capacity: Int,
    into merged: UnsafeMutablePointer<Float>
  ) -> (count: Int, sum: Float) {
    var (i, j, count) = (0, 0, 0)
    var sum: Float = 0
    while count < capacity, i < aCount || j < bCount {
      let score: Float
      if j == bCount || (i < aCount && a[i] >= b[j]) {
        score = a[i]
        i += 1
      } else {
        score = b[j]
        j += 1
      }
      merged[count] = score
      sum += score
      count += 1
    }
    return (count, sum)
  }
}
