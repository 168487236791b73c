import CrosspointCompression
import CrosspointCore
import CrosspointExchange
import Testing

@Suite struct OptionsTests {
  @Test(arguments: [
    "off", "lsh-moe", "lsh:functions=1,centred=true", "lsh:functions=2,width=64,centred=false",
    "lsh:functions=1,centred=true,rate=0.125,refinements=2",
  ])
  func compressionReadsWhatItPrints(text: String) throws {
    let compression = try ExchangeOptions.Compression(named: text)
    #expect("\(compression)" == text)
  }

  @Test func thePresetIsThePapers() throws {
    #expect(try ExchangeOptions.Compression(named: "lsh-moe") == .crossPolytope(.lshMoE))
    #expect(ClusterOptions.lshMoE.functions == 6)
  }

  @Test(arguments: ["", "lsh:", "lsh:functions", "lsh:functions=x", "lsh:centred=2", "lsh:speed=1", "LSH", "lsh-moe:"])
  func nonsenseIsNoCompression(text: String) {
    #expect(throws: CrosspointError.self) { try ExchangeOptions.Compression(named: text) }
  }
}
