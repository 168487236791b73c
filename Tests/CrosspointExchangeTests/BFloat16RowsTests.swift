import CrosspointCompression
import CrosspointCore
import CrosspointFabric
import CrosspointPolicy
import CrosspointRouting
import CrosspointTestSupport
import CrosspointTokens
import Testing

@testable import CrosspointExchange

/// Rows that are bf16 in the caller's memory: every transfer gives what it gives for floats of the same values, rounded once.
@Suite struct BFloat16RowsTests {
  private static let (hidden, experts, topK) = (37, 5, 3)

  /// To nearest, ties to even.
  private static func rounded(_ values: [Float]) -> [Float] {
    values.map { value in
      let bits = value.bitPattern
      return Float(bitPattern: (bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF_0000)
    }
  }

  private static func bf16(_ values: [Float], hidden: Int = hidden) throws -> TokenBatch {
    try TokenBatch(values, hidden: hidden, type: .bf16)
  }

  /// One step with rows of either type, both with the same values in each transfer; what they give is compared.
  private static func compareStep(
    _ narrow: ExpertExchange, _ wide: ExpertExchange, tokens: Int, seed: UInt64, inPlace: Bool, _ comment: String
  ) throws {
    let (hidden, experts) = (narrow.layout.hidden, narrow.layout.experts)
    let routing = try randomRouting(tokens: tokens, topK: min(topK, experts), experts: experts, seed: seed + 1)
    func expectSame(_ few: borrowing TokenBatch, _ many: borrowing TokenBatch, _ what: String) {
      #expect(few.type == .bf16 && many.type == .fp32 && few.rows == many.rows)
      #expect(firstBitDifference(few.array, rounded(many.array)) == nil, "\(what), \(comment)")
    }
    func random(_ rows: Int, _ seed: UInt64) -> [Float] { rounded(randomFloats(rows * hidden, seed: seed)) }

    let x = random(tokens, seed)
    let (few, many) = (
      try narrow.dispatch(bf16(x, hidden: hidden), routing), try wide.dispatch(TokenBatch(x, hidden: hidden), routing)
    )
    expectSame(few.rows, many.rows, "dispatch")
    #expect(few.rowsPerExpert == many.rowsPerExpert)

    let o = random(few.rows.rows, seed + 2)
    let outputs = try bf16(o, hidden: hidden)
    if inPlace { try few.outputs().bytes.copyMemory(from: .init(outputs.bytes)) }
    let y = inPlace ? try narrow.combine(few) : try narrow.combine(outputs, few)
    expectSame(y, try wide.combine(TokenBatch(o, hidden: hidden), many), "combine")

    let dy = random(tokens, seed + 3)
    let dOutput = try narrow.combineBackward(bf16(dy, hidden: hidden), few)
    expectSame(dOutput, try wide.combineBackward(TokenBatch(dy, hidden: hidden), many), "combineBackward")
    #expect(firstBitDifference(few.topkWeightGradients, many.topkWeightGradients) == nil, "weights, \(comment)")

    let dRows = random(few.rows.rows, seed + 4)
    let gradients = try bf16(dRows, hidden: hidden)
    if inPlace { try few.rowGradients().bytes.copyMemory(from: .init(gradients.bytes)) }
    let dx = inPlace ? try narrow.dispatchBackward(few) : try narrow.dispatchBackward(gradients, few)
    expectSame(dx, try wide.dispatchBackward(TokenBatch(dRows, hidden: hidden), many), "dispatchBackward")
  }

  /// Steps of as many tokens as ranks and steps say; the last of several ranks has none in the first.
  private static func compare(
    ranks: Int, ranksPerNode: Int, layout: ExpertLayout, _ options: ExchangeOptions, tokens: Int = 17,
    smallBytes: Int? = nil
  ) throws -> [(narrow: LayerStatistics, wide: LayerStatistics)] {
    try SimulatedCluster(ranks: ranks, ranksPerNode: ranksPerNode).run { fabric in
      var few = options
      few.rows = .bf16
      let narrow = try ExpertExchange(fabric: fabric, layout: layout, options: few, smallBytes: smallBytes)
      let wide = try ExpertExchange(fabric: fabric, layout: layout, options: options, smallBytes: smallBytes)
      for step in 0..<3 {
        let isEmpty = ranks > 1 && fabric.rank == ranks - 1 && step == 0
        try compareStep(
          narrow, wide, tokens: isEmpty ? 0 : tokens + 3 * fabric.rank + step,
          seed: UInt64(100 * step + 10 * fabric.rank),
          inPlace: step == 1 || (step == 2 && fabric.rank == 0),
          "\(ranks) ranks, \(ranksPerNode) a node, small \(smallBytes as Any), step \(step), \(options)")
      }
      return (narrow.statistics, wide.statistics)
    }
  }

  @Test(
    arguments: 1...4,
    [
      "fp32", "bf16", "fp16", "fp8", "int8", "int4", "rotated:1", "rotated:4", "zipcache:8", "mixed:2,4", "entropy:2",
    ])
  func everyTransferGivesTheRoundedBitsOfFloats(ranks: Int, format: String) throws {
    let layout = try ExpertLayout(experts: Self.experts, hidden: Self.hidden)
    var options = ExchangeOptions(wire: .init(try #require(WireFormat(format))), seed: 3)
    for ranksPerNode in Set([1, 2, ranks]) where ranksPerNode <= ranks {
      for (withinNode, smallBytes) in [(ExchangeOptions.WithinNode.coded, Int?.some(0)), (.plain, nil)] {
        options.withinNode = withinNode
        _ = try Self.compare(
          ranks: ranks, ranksPerNode: ranksPerNode, layout: layout, options, smallBytes: smallBytes)
      }
    }
  }

  /// Rows that travel in blocks, out of the memory where they lie and into the memory where they belong.
  @Test(arguments: [1, 2])
  func largeGroupsGiveThemToo(ranksPerNode: Int) throws {
    _ = try Self.compare(
      ranks: 2, ranksPerNode: ranksPerNode, layout: ExpertLayout(experts: 2, hidden: 4097), .init(), tokens: 12)
  }

  @Test func twoBytesAnElementTravelAndLieAtHome() throws {
    let layout = try ExpertLayout(experts: 2, hidden: 4097)
    let floats = try Self.compare(ranks: 2, ranksPerNode: 1, layout: layout, .init(), tokens: 12)
    let coded = try Self.compare(ranks: 2, ranksPerNode: 1, layout: layout, .init(wire: .init(.bf16)), tokens: 12)
    for (plain, bf16) in zip(floats, coded) {
      #expect(plain.narrow.wireBytes == bf16.wide.wireBytes && bf16.narrow.wireBytes == bf16.wide.wireBytes)
      #expect(plain.narrow.uncompressedBytes * 2 == plain.wide.uncompressedBytes)
      for (few, many) in zip(plain.narrow.traffic, plain.wide.traffic) {
        #expect(few.localBytes * 2 == many.localBytes)
      }
    }
  }

  @Test(arguments: [1, 3], [Float.nan, .infinity, -.infinity])
  func nonFiniteElementsAreNamedOnEveryRank(ranksPerNode: Int, value: Float) {
    for step in 0..<4 {
      let thrown = errors(ranksPerNode: ranksPerNode) { fabric in
        let exchange = try Self.exchange(fabric)
        func batch(_ rows: Int, isBad: Bool) throws -> TokenBatch {
          var values = Self.rounded(randomFloats(rows * Self.hidden, seed: 3))
          if isBad, fabric.rank == 1 { values[2 * Self.hidden + 36] = value }
          return try Self.bf16(values)
        }
        let routing = try Routing(
          topkIndices: (0..<5).flatMap { [Int32($0), Int32(($0 + 1) % 5)] },
          topkWeights: Array(repeating: 0.5, count: 10), topK: 2, experts: 5)
        let handle = try exchange.dispatch(batch(5, isBad: step == 0), routing)
        let rows = handle.rows.rows
        _ = try exchange.combine(batch(rows, isBad: step == 1), handle)
        _ = try exchange.combineBackward(batch(5, isBad: step == 2), handle)
        _ = try exchange.dispatchBackward(batch(rows, isBad: step == 3), handle)
      }
      #expect(thrown.count == 3)
      for error in thrown {
        #expect(error.code == .nonFinite && error.rank == 1 && error == thrown[0])
        #expect(error.argument == ["tokens", "output", "outputGradient", "rowGradient"][step])
        #expect(error.message.contains("row 2, column 36"))
      }
    }
  }

  /// The largest bf16 travels as it is, also where rows of floats are coded as bf16 and it is beyond the bound.
  @Test(arguments: ["fp32", "bf16"])
  func everyFiniteElementTravelsWithoutLoss(format: String) throws {
    let options = ExchangeOptions(rows: .bf16, wire: .init(try #require(WireFormat(format))))
    let largest = Float(bitPattern: 0x7F7F_0000)
    try SimulatedCluster(ranks: 2).run { fabric in
      let exchange = try Self.exchange(fabric, options)
      var values = Self.rounded(randomFloats(5 * Self.hidden, seed: UInt64(fabric.rank)))
      (values[7], values[80], values[81]) = (largest, -largest, Float(bitPattern: 0x0001_0000))
      let routing = try Routing(
        topkIndices: [0, 4, 3, 1, 2], topkWeights: [1, 1, 1, 1, 1], topK: 1, experts: Self.experts)
      let handle = try exchange.dispatch(Self.bf16(values), routing)
      let y = try exchange.combine(handle.rows, handle)
      #expect(firstBitDifference(y.array, values) == nil)
    }
    let thrown = errors { fabric in
      let exchange = try Self.exchange(fabric, .init(rows: .bf16, wire: .init(.fp8)))
      let values = Array(repeating: largest, count: 5 * Self.hidden)
      _ = try exchange.dispatch(
        Self.bf16(values), randomRouting(tokens: 5, topK: 2, experts: Self.experts, notSent: 0, seed: 1))
    }
    #expect(thrown.count == 3 && thrown.allSatisfy { $0.code == .nonFinite && $0.message.contains("fp8 carries") })
  }

  @Test func whatNeedsRowsOfFloatsIsNamedOnEveryRank() throws {
    for (text, name) in [
      ("compression=lsh-moe", "compression off"), ("copies=rank", "copies expert"), ("copies=node:3", "copies expert"),
      ("wire=entropy:2,memory=4", "memory 0"), ("budget-bytes=0.5", "policy off"),
    ] {
      var options = try ExchangeOptions(named: text)
      options.rows = .bf16
      let refused = options
      let thrown = errors { fabric in _ = try Self.exchange(fabric, refused) }
      #expect(thrown.count == 3)
      for error in thrown {
        #expect(error.code == .invalidArgument && error.argument == "rows" && error == thrown[0], "\(text)")
        #expect(error.message.contains("bf16 rows need \(name)"), "\(error.message)")
      }
    }
  }

  @Test func automaticCopiesAreOnePerExpert() throws {
    let copies = try SimulatedCluster(ranks: 4).run { fabric in
      try ExpertExchange(
        fabric: fabric, layout: ExpertLayout(experts: 8, hidden: 8),
        options: ExchangeOptions(rows: .bf16, copies: .automatic(topK: 8))
      ).options.copies
    }
    #expect(copies == Array(repeating: .perExpert, count: 4))
  }

  @Test func ranksThatDifferInTheTypeAreNamed() {
    let thrown = errors { fabric in _ = try Self.exchange(fabric, .init(rows: fabric.rank == 2 ? .fp32 : .bf16)) }
    for error in thrown {
      #expect(error.code == .ranksDisagree && error.rank == 2 && error.argument == "rows")
      #expect(error.message.contains("fp32 on rank 2, bf16 on rank 0"))
    }
  }

  @Test(arguments: [RowType.fp32, .bf16])
  func aBatchOfTheOtherTypeIsNamedOnEveryRank(type: RowType) throws {
    let other = type == .fp32 ? RowType.bf16 : .fp32
    for step in 0..<5 {
      let thrown = errors { fabric in
        let exchange = try Self.exchange(fabric, .init(rows: type))
        func batch(_ rows: Int, _ place: Int) throws -> TokenBatch {
          try TokenBatch(rows: rows, hidden: Self.hidden, type: place == step && fabric.rank == 2 ? other : type)
        }
        let handle = try exchange.dispatch(
          batch(4, 0), randomRouting(tokens: 4, topK: 2, experts: Self.experts, seed: 1))
        try exchange.combine(batch(handle.rows.rows, 1), handle, into: batch(4, 4))
        _ = try exchange.combineBackward(batch(4, 2), handle)
        _ = try exchange.dispatchBackward(batch(handle.rows.rows, 3), handle)
      }
      #expect(thrown.count == 3)
      for error in thrown {
        #expect(error.code == .invalidArgument && error.rank == 2 && error == thrown[0])
        #expect(error.argument == ["tokens", "output", "outputGradient", "rowGradient", "result"][step])
        #expect(error.message.contains("\(other) rows, the exchange's options say \(type)"))
      }
    }
  }

  private static func exchange(
    _ fabric: any Fabric, _ options: ExchangeOptions = .init(rows: .bf16)
  ) throws -> ExpertExchange {
    try ExpertExchange(fabric: fabric, layout: ExpertLayout(experts: experts, hidden: hidden), options: options)
  }
}
