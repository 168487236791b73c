import CrosspointCompression
import CrosspointCore
import CrosspointFiles
import CrosspointTestSupport
import Testing

@testable import CrosspointExchange
@testable import CrosspointFabric
@testable import CrosspointPolicy

@Suite struct TuningTests {
  /// A tuning with these links, and codes that take as many nanoseconds a byte as they have bits, fp32 none.
  private static func tuning(within: Double? = nil, between: Double? = 8e-9) -> Tuning {
    func link(_ seconds: Double?) -> Tuning.Link? {
      seconds.map { Tuning.Link(peers: 1, latency: 1e-5, secondsPerByte: $0) }
    }
    return Tuning(
      withinNode: link(within), betweenNodes: link(between),
      codecs: Dictionary(uniqueKeysWithValues: Tuning.formats.map { ("\($0)", $0 == .fp32 ? 0 : $0.rate * 1e-9) }))
  }

  private static func write(_ bytes: [UInt8], in folder: TemporaryFolder) throws -> String {
    let path = folder.file("tuning.json")
    try writeFile(path, bytes, argument: "test")
    return path
  }

  @Test func whatIsWrittenIsRead() throws {
    let folder = try TemporaryFolder()
    let tuning = Self.tuning(within: 1e-10)
    let path = try Self.write(encodedJSON(tuning, argument: "test"), in: folder)
    #expect(try Tuning(path: path) == tuning)
    #expect(
      try ExchangeOptions(named: "fastest=0.05,tuning=\(path)").policy == .fastest(relativeError: 0.05, tuning: tuning))
    let alone = #expect(throws: CrosspointError.self) { try ExchangeOptions(named: "tuning=\(path)") }
    #expect(alone?.argument == "tuning" && alone?.message == "it needs fastest")
  }

  @Test func whatIsNoTuningIsRefusedByName() throws {
    let folder = try TemporaryFolder()
    var slow = Self.tuning()
    slow.betweenNodes!.secondsPerByte = -1
    var short = Self.tuning()
    short.codecs["rotated:4"] = nil
    let cases = [
      (Array("{}".utf8), "xpoint tune"), (try encodedJSON(slow, argument: "test"), "-1.0 seconds"),
      (try encodedJSON(short, argument: "test"), "no speed of rotated:4"),
    ]
    for (bytes, mentions) in cases {
      let path = try Self.write(bytes, in: folder)
      let error = #expect(throws: CrosspointError.self) { try Tuning(path: path) }
      #expect(error?.code == .invalidArgument && error?.argument == "tuning")
      #expect(error?.message.contains(mentions) == true, "\(error.debugDescription)")
    }
    let missing = #expect(throws: CrosspointError.self) { try Tuning(path: "/nowhere") }
    #expect(missing?.code == .file && missing?.message.contains("/nowhere") == true)
  }

  @Test func aTuningWithoutALinkThatIsNeededIsRefusedOnEveryRank() throws {
    let policy = ExchangeOptions.Policy.fastest(relativeError: 0.1, tuning: Self.tuning(within: 1e-10, between: nil))
    let errors = try SimulatedCluster(ranks: 3, ranksPerNode: 2).run { fabric in
      #expect(throws: CrosspointError.self) {
        try ExpertExchange(
          fabric: fabric, layout: ExpertLayout(experts: 4, hidden: 64), options: .init(policy: policy))
      }
    }
    #expect(errors.allSatisfy { $0?.code == .invalidArgument && $0?.argument == "tuning" })
    #expect(errors.allSatisfy { $0?.message.contains("different nodes") == true })
  }

  @Test func ranksWithDifferentTuningsAreNamed() throws {
    let errors = try SimulatedCluster(ranks: 2).run { fabric in
      let tuning = Self.tuning(between: fabric.rank == 0 ? 8e-9 : 9e-9)
      return #expect(throws: CrosspointError.self) {
        try ExpertExchange(
          fabric: fabric, layout: ExpertLayout(experts: 4, hidden: 64),
          options: .init(policy: .fastest(relativeError: 0.1, tuning: tuning)))
      }
    }
    #expect(errors.allSatisfy { $0?.code == .ranksDisagree && $0?.message.contains("tuning:") == true })
  }

  /// On a slow link rows are coded, on one that takes no time they are not.
  @Test(arguments: [(1e-6, false), (1e-13, true)])
  func theFastestIsChosenByTheTuning(secondsPerByte: Double, isLossless: Bool) throws {
    try SimulatedCluster(ranks: 2).run { fabric in
      let exchange = try ExpertExchange(
        fabric: fabric, layout: ExpertLayout(experts: 4, hidden: 64),
        options: .init(policy: .fastest(relativeError: 0.1, tuning: Self.tuning(between: secondsPerByte))))
      for step in 0..<3 {
        let tokens = try randomBatch(rows: 512, hidden: 64, seed: UInt64(step))
        let handle = try exchange.dispatch(
          tokens, randomRouting(tokens: 512, topK: 2, experts: 4, notSent: 0, seed: UInt64(step)))
        _ = try exchange.combine(handle.rows, handle)
      }
      for kind in [TransferKind.dispatch, .combine] {
        let choice = try #require(exchange.statistics.choices[kind.rawValue])
        #expect((choice.wire == .fp32) == isLossless, "\(choice)")
        #expect(choice.clusterRate == nil && choice.predictedError <= 0.1, "\(choice)")
      }
    }
  }
}
