import CrosspointCompression
import CrosspointCore
import CrosspointFabric
import CrosspointRouting
import CrosspointTestSupport
import CrosspointTokens
import Testing

@testable import CrosspointExchange

@Suite struct MemoryTests {
  static let hidden = 32
  static let layout = try! ExpertLayout(experts: 4, hidden: hidden)

  /// Rows near one of four, which their labels say.
  static func rows(_ count: Int, seed: UInt64) -> (values: [Float], labels: [Int32]) {
    let (anchors, noise) = (randomFloats(4 * hidden, seed: 1), randomFloats(count * hidden, seed: seed))
    let labels = (0..<count).map { Int32(($0 * 7 + Int(seed)) % 4) }
    let values = noise.indices.map { 10 * anchors[Int(labels[$0 / hidden]) * hidden + $0 % hidden] + noise[$0] }
    return (values, labels)
  }

  static func memory(_ count: Int = 200) throws -> RowMemory {
    let (values, labels) = rows(count, seed: 50)
    return try RowMemory(
      learnedFrom: TokenBatch(values, hidden: hidden), labels: labels,
      codec: RowCodec(hidden: hidden, seed: 0, pool: BufferPool()))
  }

  /// The error of what comes home from experts that give back what they get.
  static func error(_ fabric: any Fabric, _ memory: RowMemory?, copies: ExchangeOptions.Copies) throws -> Double {
    var wire = ExchangeOptions.Wire(.fp32)
    wire.dispatch = try .entropy(bits: 2)
    let options = ExchangeOptions(copies: copies, wire: wire)
    let exchange = try ExpertExchange(fabric: fabric, layout: Self.layout, options: options)
    exchange.memory[.dispatch] = memory
    let (values, labels) = rows(100, seed: UInt64(60 + fabric.rank))
    let tokens = try TokenBatch(values, hidden: hidden)
    let routing = try randomRouting(tokens: 100, topK: 1, experts: 4, notSent: 0, seed: UInt64(fabric.rank))
    let handle = try exchange.dispatch(tokens, routing, labels: labels)
    let sent = exchange.statistics[.dispatch].wireBytes
    #expect(memory == nil || sent > memory!.bytesPerStep)
    let received = try exchange.combine(handle.rows, handle)
    return relativeError(received.array, values)
  }

  @Test(arguments: [1, 2, 4], ExchangeOptions.Copies.all(ranks: 4))
  func aMemoryLessensTheErrorOfDispatch(ranksPerNode: Int, copies: ExchangeOptions.Copies) throws {
    let memory = try Self.memory()
    let errors = try SimulatedCluster(ranks: 4, ranksPerNode: ranksPerNode).run { fabric in
      try [nil, memory].map { try Self.error(fabric, $0, copies: copies) }
    }
    for error in errors { #expect(error[1] < error[0], "\(error)") }
  }

  @Test func aRankWithAnotherMemoryIsNamedOnEveryRank() throws {
    let (memory, other) = (try Self.memory(), try Self.memory(201))
    let thrown = errors { fabric in
      _ = try Self.error(fabric, fabric.rank == 1 ? other : memory, copies: .perExpert)
    }
    #expect(thrown.count == 3)
    for error in thrown { #expect(error.code == .ranksDisagree && error.argument == "memory" && error == thrown[0]) }
  }

  @Test(
    arguments: [([0, 1, (1 << 24) + 1], "token 2"), ([0, -2, 0], "token 1"), ([0, 1], "2 labels for 3")]
      as [([Int32], String)])
  func labelsThatCannotBeAreNamedOnEveryRank(labels: [Int32], message: String) throws {
    let thrown = errors { fabric in
      let exchange = try ExpertExchange(fabric: fabric, layout: Self.layout)
      let routing = try randomRouting(tokens: 3, topK: 1, experts: 4, notSent: 0, seed: 1)
      _ = try exchange.dispatch(
        TokenBatch(rows: 3, hidden: Self.hidden), routing, labels: fabric.rank == 2 ? labels : nil)
    }
    #expect(thrown.count == 3)
    for error in thrown {
      #expect(error.code == .invalidArgument && error.rank == 2 && error.argument == "labels")
      #expect(error.message.contains(message), "\(error)")
    }
  }
}
