import CrosspointCore
import CrosspointRouting
import CrosspointTestSupport
import Foundation
import Testing

@Suite("Groups at a price")
struct GroupPriceTests {
  /// The definition, with sets and sorting.
  private func reference(
    _ keys: [Float], _ scores: [Float], groups: Int, topK: Int, price: Float
  ) -> (groups: Set<Int>, experts: [Int]) {
    let size = keys.count / groups
    func best(_ of: Set<Int>) -> [Int] {
      Array(keys.indices.filter { of.contains($0 / size) }.sorted { keys[$0] > keys[$1] }.prefix(topK))
    }
    func mass(_ of: Set<Int>) -> Float { best(of).reduce(0) { $0 + scores[$1] } }
    let all = mass(Set(0..<groups))
    var chosen: Set<Int> = []
    while let next = (0..<groups).filter({ !chosen.contains($0) }).max(by: {
      mass(chosen.union([$0])) < mass(chosen.union([$1]))
    }) {
      if chosen.count * size >= topK, mass(chosen.union([next])) - mass(chosen) <= price * all { break }
      chosen.insert(next)
    }
    return (chosen, best(chosen))
  }

  @Test(arguments: everyScoring, [false, true])
  func groupsAreAddedWhileTheyAreWorthTheirPrice(scoring: TopKRouter.Scoring, biased: Bool) throws {
    let (experts, groups, topK, rows) = (12, 4, 5, 60)  // one group holds fewer than k experts
    let plain = try TopKRouter(experts: experts, topK: topK, scoring: scoring)
    let logits = randomFloats(rows * experts, seed: 4)
    let bias = biased ? try SelectionBias(values: uniformFloats(experts, spread: 0.3, seed: 5)) : nil
    let free = try plain.route(logits: logits, bias: bias)
    var used = free.routing.groupsUsed(of: groups)
    for price in [0, 0.1, 0.2, 1] {
      let decision = try plain.priced(price, perGroupOf: groups).route(logits: logits, bias: bias)
      let isSame = decision.routing == free.routing
      if price == 0 { #expect(isSame, "what costs nothing changes nothing") }
      for row in 0..<rows where price > 0 {
        let range = row * experts..<(row + 1) * experts
        let scores = Array(decision.probabilities[range])
        var keys = scoring == .topKThenSoftmax ? Array(logits[range]) : scores
        if let bias { for expert in keys.indices { keys[expert] += bias.values[expert] } }
        let worth = scoring == .topKThenSoftmax ? keys.map { exp($0) } : keys.map { max(0, $0) }
        let expected = reference(keys, worth, groups: groups, topK: topK, price: Float(price))
        #expect(decision.routing.topkIndices[row * topK..<(row + 1) * topK].map(Int.init) == expected.experts)
      }
      let now = decision.routing.groupsUsed(of: groups)
      #expect(now <= used, "\(now) groups at \(price), \(used) before")
      used = now
    }
    #expect(used == 2 * rows, "as few as hold k experts")
  }

  @Test func oneGroupIsChosenAsAWhole() throws {
    // The best expert is in group 0, the best three together in group 1.
    let router = try TopKRouter(experts: 6, topK: 3, scoring: .softmaxThenTopK(renormalised: true))
    let logits: [Float] = [2, -3, -3, 1.5, 1.5, 1.5]
    let chosen = try router.priced(1, perGroupOf: 2).route(logits: logits).routing
    #expect(chosen.topkIndices == [3, 4, 5])
    #expect(chosen.groupsUsed(of: 2) == 1 && chosen.groupsUsed(of: 6) == 3)
    // At this price the first expert is worth a group of its own.
    #expect(try router.priced(0.1, perGroupOf: 2).route(logits: logits).routing.topkIndices == [0, 3, 4])
  }

  /// The second best expert's score vanishes beside the best one's: 1 + exp(−20) = 1.
  @Test func aPriceOfZeroKeepsAlsoWhatAddsLessThanARounding() throws {
    let router = try TopKRouter(experts: 4, topK: 2, scoring: .topKThenSoftmax)
    let logits: [Float] = [0, -30, -20, -40]
    #expect(try router.route(logits: logits).routing.topkIndices == [0, 2])
    #expect(try router.priced(0, perGroupOf: 2).route(logits: logits).routing.topkIndices == [0, 2])
  }

  @Test(arguments: everyScoring)
  func gradientsMatchCentralDifferences(scoring: TopKRouter.Scoring) throws {
    let router = try TopKRouter(experts: 6, topK: 2, scoring: scoring, loadBalance: 1).priced(0.4, perGroupOf: 2)
    try expectExactGradients(of: router)
  }

  @Test func whatIsNoPriceIsRefused() throws {
    let router = try TopKRouter(experts: 6, topK: 3, scoring: .topKThenSoftmax)
    for (price, groups, argument) in [
      (0.1, 4, "groups"), (0.1, 0, "groups"), (-0.1, 2, "price"), (1.1, 2, "price"), (.nan, 2, "price"),
    ] {
      do {
        _ = try router.priced(price, perGroupOf: groups)
        Issue.record("\(price) per group of \(groups) passed")
      } catch {
        #expect(error.operation == "GroupPrice" && error.argument == argument)
      }
    }
  }
}
