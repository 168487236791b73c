import CrosspointRouting
import CrosspointTestSupport
import Testing

@Suite("Routing to groups of experts")
struct RegroupTests {
  /// Experts 0 and 1 are group 0, 2 and 3 group 1, 4 and 5 group 2.
  @Test func theFirstChoiceInAGroupStandsForAll() throws {
    let routing = try Routing(
      topkIndices: [0, 3, 1, 5, -1, 4, 2, 3, -1], topkWeights: [0.5, 0.25, -0.125, 0, 9, 0, 1, -1, 9], topK: 3,
      experts: 6)
    var groups = Routing.none
    groups.regroup(routing, groups: 3) { $0 / 2 }
    // Weights are sums of magnitudes; all zero is 1; choices that are not sent count nowhere.
    #expect(groups.topkIndices == [0, 1, -1, 2, -1, -1, 1, -1, -1])
    #expect(groups.topkWeights == [0.625, 0.25, 0, 1, 0, 0, 2, 0, 0])
    #expect(groups.tokensPerExpert == [1, 2, 1])
    #expect((groups.tokens, groups.topK, groups.experts) == (3, 3, 3))
  }

  /// Nothing of what was there before stays, whichever of the two is larger.
  @Test func memoryThatIsUsedAgainGivesTheSame() throws {
    var used = Routing.none
    for (tokens, topK, experts) in [(7, 2, 5), (40, 4, 9), (0, 1, 3), (11, 3, 4)] {
      let routing = try randomRouting(tokens: tokens, topK: topK, experts: experts, seed: UInt64(tokens))
      var fresh = Routing.none
      let groups = (experts + 1) / 2
      fresh.regroup(routing, groups: groups) { $0 / 2 }
      used.regroup(routing, groups: groups) { $0 / 2 }
      #expect(used == fresh)
      for group in 0..<groups {
        #expect(used.tokensPerExpert[group] == used.topkIndices.count { $0 == Int32(group) })
      }
    }
  }
}
