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
    #expect(
      try ExchangeArguments.parse(["--fastest", "0.05"]).exchangeOptions.policy == .fastest(relativeError: 0.05))
  }

  @Test(arguments: [
    ["--budget-bytes", "0"], ["--budget-bytes", "-1"], ["--budget-bytes", "nan"], ["--budget-bytes", "2.1"],
    ["--budget-error", "0"], ["--budget-error", "inf"], ["--budget-error", "x"],
    ["--fastest", "2"], ["--tuning", "/nowhere"],
    ["--budget-bytes", "0.1", "--budget-error", "0.1"],
  ])
  func aBudgetThatIsNoneIsRefused(arguments: [String]) {
    let error = #expect(throws: (any Error).self) { try ExchangeArguments.parse(arguments) }
    if let error { #expect(ExchangeArguments.message(for: error).contains(arguments[0])) }
  }
}
