import CrosspointCompression
import CrosspointCore
import CrosspointExchange
import CrosspointPolicy
import Testing

@Suite struct SettingsTextTests {
  @Test func anEmptyTextIsTheDefaults() throws {
    #expect(try ExchangeOptions(named: "") == ExchangeOptions())
  }

  @Test func settingsAreThoseOfTheCommandLine() throws {
    let options = try ExchangeOptions(
      named: "compression=lsh:functions=2,width=64,wire=bf16,wire-gradient=mixed:2,4,0.5,copies=rank,seed=7")
    var wire = ExchangeOptions.Wire(.bf16)
    wire.combineBackward = try WireFormat(named: "mixed:2,4,0.5")
    wire.dispatchBackward = wire.combineBackward
    let expected = ExchangeOptions(
      compression: .crossPolytope(ClusterOptions(functions: 2, width: 64)), copies: .perRank, wire: wire, seed: 7)
    #expect(options == expected)
    let more = try ExchangeOptions(
      named:
        "compensation=lowrank:4,non-finite=propagate,capacity-bytes=4096,wire-combine=fp8")
    #expect(more.compensation == .lowRank(4) && more.nonFinite == .propagate)
    #expect(more.capacityBytes == 4096 && more.wire.combine == .fp8 && more.wire.dispatch == .fp32)
  }

  @Test func aBudgetIsAPolicy() throws {
    #expect(try ExchangeOptions(named: "budget-bytes=0.13").policy == .budget(bytes: 0.13))
    #expect(try ExchangeOptions(named: "budget-error=0.05").policy == .budget(relativeError: 0.05))
    #expect(try ExchangeOptions(named: "fastest=0.05").policy == .fastest(relativeError: 0.05))
  }

  @Test func whatASettingCannotBeIsNamed() throws {
    for setting in ExchangeSetting.allCases {
      let error = #expect(throws: CrosspointError.self) { try ExchangeOptions([setting: "?"]) }
      #expect(error?.argument == setting.rawValue)
    }
  }

  @Test func aTuningThatCannotBeReadIsAFileError() {
    let error = #expect(throws: CrosspointError.self) { try ExchangeOptions(named: "tuning=/nowhere,fastest=0.1") }
    #expect(error?.code == .file && error?.argument == "tuning")
  }

  @Test(arguments: [
    ("wires=bf16", "options", "wires=bf16"), ("bf16", "options", "bf16"), ("wire=bf16,,", "options", "''"),
    ("wire=bf17", "wire", "bf17"), ("copies=token", "copies", "expert, rank, node"),
    ("copies=node:0", "copies", "node:RANKS"), ("seed=-1", "seed", "-1"),
    ("wire=fp32,wire=bf16", "wire", "twice"), ("copies=rank,width=4", "options", "width=4"),
    ("budget-bytes=0.1,budget-error=0.1", "budget-bytes", "exclude"),
    ("budget-error=0.1,fastest=0.1", "budget-error", "exclude"),
    ("budget-bytes=3", "budget-bytes", "3.0"), ("compression=lsh:functions=x", "compression", "functions"),
    ("wire=rotated:99", "wire", "rotated:99"),
  ])
  func whatIsWrongIsNamed(text: String, argument: String, mentions: String) {
    let error = #expect(throws: CrosspointError.self) { try ExchangeOptions(named: text) }
    #expect(error?.code == .invalidArgument && error?.argument == argument, "\(text): \(error.debugDescription)")
    #expect(error?.message.contains(mentions) == true, "\(text): \(error.debugDescription)")
  }
}
