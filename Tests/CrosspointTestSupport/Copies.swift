import CrosspointExchange

extension ExchangeOptions.Copies {
  /// Every kind; nodes of two ranks, or one of all where their number is odd.
  package static func all(ranks: Int) -> [Self] {
    [.perExpert, .perRank, .perNode(ranks: ranks.isMultiple(of: 2) ? 2 : ranks)]
  }
}
