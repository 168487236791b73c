import CrosspointCore
import CrosspointFabric
import CrosspointRouting
import CrosspointTestSupport
import CrosspointTokens
import Testing

@testable import CrosspointExchange

/// How often a token travels, chosen when the exchange is made.
@Suite struct AutomaticCopiesTests {
  typealias Copies = ExchangeOptions.Copies

  /// What was fastest: one host, four, two of two ranks (docs/results.md).
  static let cases: [(ranks: Int, ranksPerNode: Int, topK: Int, expected: Copies)] = [
    (4, 4, 1, .perExpert), (4, 4, 2, .perExpert), (4, 4, 8, .perExpert), (4, 4, 16, .perExpert),
    (2, 2, 8, .perExpert), (2, 2, 16, .perExpert), (1, 1, 8, .perExpert),
    (4, 1, 1, .perExpert), (4, 1, 2, .perExpert), (4, 1, 8, .perRank), (4, 1, 16, .perRank),
    (4, 2, 1, .perExpert), (4, 2, 2, .perExpert), (4, 2, 8, .perNode(ranks: 2)), (4, 2, 16, .perNode(ranks: 2)),
    (8, 1, 2, .perExpert), (8, 1, 8, .perRank), (8, 4, 8, .perNode(ranks: 4)),
  ]

  @Test(arguments: cases)
  func theChoiceIsTheSameOnEveryRankAndGivesItsBits(
    _ here: (ranks: Int, ranksPerNode: Int, topK: Int, expected: Copies)
  )
    throws
  {
    func steps(_ copies: Copies) throws -> [StepResult] {
      try SimulatedCluster(ranks: here.ranks, ranksPerNode: here.ranksPerNode).run { fabric in
        let exchange = try ExpertExchange(
          fabric: fabric, layout: ExpertLayout(experts: 64, hidden: 4), options: .init(copies: copies))
        #expect(exchange.options.copies == here.expected)
        let seed = UInt64(fabric.rank)
        return try trainingStep(
          exchange, tokens: randomBatch(rows: 9, hidden: 4, seed: seed),
          routing: randomRouting(tokens: 9, topK: here.topK, experts: 64, seed: seed),
          dy: randomBatch(rows: 9, hidden: 4, seed: seed + 1))
      }
    }
    for (one, other) in zip(try steps(.automatic(topK: here.topK)), try steps(here.expected)) {
      let isEqual = one.isBitwiseEqual(to: other)
      #expect(isEqual)
    }
  }

  /// Experts that do not divide evenly, ranks without any, nodes that do not fit, and more choices than experts.
  @Test(arguments: [1, 2, 3, 5, 63], [1, 2, 3, 4])
  func anyLayoutHasAChoice(experts: Int, ranksPerNode: Int) throws {
    for topK in [1, 2, 7, 100] {
      let chosen = try SimulatedCluster(ranks: 6, ranksPerNode: ranksPerNode).run { fabric in
        try ExpertExchange(
          fabric: fabric, layout: ExpertLayout(experts: experts, hidden: 4),
          options: .init(copies: .automatic(topK: topK))
        ).options.copies
      }
      #expect(Set(chosen).count == 1)
      if experts == 1 || topK == 1 { #expect(chosen[0] == .perExpert) }
    }
  }

  @Test func compensationThatLearnsKeepsOneCopyPerExpert() throws {
    try SimulatedCluster(ranks: 4).run { fabric in
      let exchange = try ExpertExchange(
        fabric: fabric, layout: ExpertLayout(experts: 64, hidden: 4),
        options: .init(compression: .crossPolytope(), copies: .automatic(topK: 8), compensation: .lowRank(1)))
      #expect(exchange.options.copies == .perExpert)
    }
  }

  @Test func theChoicesOfATokenMustBeKnown() throws {
    try SimulatedCluster(ranks: 2).run { fabric in
      let error = #expect(throws: CrosspointError.self) {
        _ = try ExpertExchange(
          fabric: fabric, layout: ExpertLayout(experts: 64, hidden: 4), options: .init(copies: .automatic()))
      }
      #expect(error?.code == .invalidArgument && error?.argument == "copies" && error?.isAgreed == true)
    }
  }

  @Test(arguments: ["automatic", "automatic:8", "node:2", "node", "rank", "expert"])
  func textsAreReadAsTheyAreWritten(text: String) throws {
    #expect(try Copies(named: text).description == text)
  }

  @Test(arguments: ["automatic:0", "automatic:", "automatic:x", "node:-1", "auto", "node:2:3"])
  func otherTextsAreRefused(text: String) {
    let error = #expect(throws: CrosspointError.self) { _ = try Copies(named: text) }
    #expect(error?.code == .invalidArgument && error?.message.contains("automatic:K") == true)
  }
}
