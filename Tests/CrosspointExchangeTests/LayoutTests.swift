import CrosspointCore
import CrosspointExchange
import Testing

@Suite struct LayoutTests {
  @Test func everyExpertLivesOnExactlyOneRank() throws {
    for experts in 1...17 {
      for ranks in 1...9 {
        let layout = try ExpertLayout(experts: experts, hidden: 4)
        var owners = [Int](repeating: -1, count: experts)
        for rank in 0..<ranks {
          for expert in layout.experts(of: rank, rankCount: ranks) {
            #expect(owners[expert] == -1)
            owners[expert] = rank
          }
        }
        for expert in 0..<experts { #expect(layout.rank(of: expert, rankCount: ranks) == owners[expert]) }
        let sizes = (0..<ranks).map { layout.experts(of: $0, rankCount: ranks).count }
        #expect(sizes.max()! - sizes.min()! <= 1)
      }
    }
  }

  @Test func noExpertsOrNoWidthIsRefused() {
    #expect(throws: CrosspointError.self) { try ExpertLayout(experts: 0, hidden: 4) }
    #expect(throws: CrosspointError.self) { try ExpertLayout(experts: 4, hidden: 0) }
  }
}
