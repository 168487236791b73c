import CrosspointCompression
import CrosspointExchange
import CrosspointOptions
import Testing

@Suite struct ExchangeArgumentsTests {
  @Test func copiesArePerExpertUnlessRanksAreAskedFor() throws {
    #expect(try ExchangeArguments.parse([]).exchangeOptions.copies == .perExpert)
    #expect(try ExchangeArguments.parse(["--copies", "rank"]).exchangeOptions.copies == .perRank)
    #expect(throws: (any Error).self) { try ExchangeArguments.parse(["--copies", "token"]) }
  }

  @Test func aBudgetIsAPolicy() throws {
    #expect(try ExchangeArguments.parse([]).exchangeOptions.policy == .off)
    #expect(try ExchangeArguments.parse(["--budget-bytes", "0.13"]).exchangeOptions.policy == .budget(bytes: 0.13))
    let timed = ExchangeOptions.Policy.budget(relativeError: 0.05, measuresSpeed: true)
    #expect(
      try ExchangeArguments.parse(["--budget-error", "0.05", "--budget-speed"]).exchangeOptions.policy == timed)
  }

  @Test(arguments: [
    ["--budget-bytes", "0"], ["--budget-bytes", "-1"], ["--budget-bytes", "nan"], ["--budget-bytes", "2.1"],
    ["--budget-error", "0"], ["--budget-error", "inf"], ["--budget-error", "x"], ["--budget-speed"],
    ["--budget-bytes", "0.1", "--budget-error", "0.1"],
  ])
  func aBudgetThatIsNoneIsRefused(arguments: [String]) {
    let error = #expect(throws: (any Error).self) { try ExchangeArguments.parse(arguments) }
    if let error { #expect(ExchangeArguments.message(for: error).contains(arguments[0])) }
  }
}
