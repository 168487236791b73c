import CrosspointCore
import CrosspointRouting
import CrosspointStages
import CrosspointTestSupport
import CrosspointTokens
import Testing

@Suite("Window pooling")
struct WindowPoolingTests {
  let layout = try! RowLayout(
    tokensPerSequence: [7, 0, 9], isPadding: (0..<16).map { $0 == 6 || (12...15).contains($0) })

  @Test(arguments: [1, 2, 3, 9], [false, true])
  func gradientsMatchCentralDifferences(window: Int, isShifted: Bool) throws {
    let pooling = try WindowPooling(.fixed(window), isShifted: isShifted)
    try expectExactGradients(layout, TokenPipeline([pooling], causal: pooling.isCausal))
  }

  @Test func aWindowIsItsMeanAndTheRaggedTailAWindowOfItsOwn() throws {
    let pooling = try WindowPooling(.fixed(2))
    let pipeline = try TokenPipeline([pooling], causal: false)
    let x = try TokenBatch([1, 3, 10, 100, 5, 7], hidden: 1)
    let padded = try RowLayout(tokensPerSequence: [3, 3], isPadding: [false, false, false, true, false, false])
    let rows = try pipeline.reduce(x, padded, training)
    #expect(rows.tokens.array == [2, 10, 5, 7])
    #expect(rows.layout.tokensPerRow == [2, 1, 1, 1])
    #expect(rows.layout.rowsPerSequence == [2, 2])
    #expect(pooling.rowOfToken == [0, 0, 1, -1, 2, 3])
    let y = try pipeline.expand(TokenBatch([20, 30, 40, 50], hidden: 1)).array
    #expect(firstBitDifference(y, [20, 20, 30, -0.0, 40, 50]) == nil)
  }

  @Test func windowsOfPaddingDoNotTravel() throws {
    let pipeline = try TokenPipeline([WindowPooling(.fixed(2))], causal: false)
    let padded = try RowLayout(tokensPerSequence: [4], isPadding: [false, false, true, true])
    let x = try TokenBatch([1, 3, .nan, .nan], hidden: 1)
    #expect(try pipeline.reduce(x, padded, training).tokens.array == [2])
  }

  @Test func shiftedOutputsGoToTheNextWindowOfTheSameSequence() throws {
    let pipeline = try TokenPipeline([WindowPooling(.fixed(2), isShifted: true)], causal: true)
    let x = try TokenBatch([1, 3, 5, 7, 9, 2, 4, 6], hidden: 1)
    let rows = try pipeline.reduce(x, RowLayout(tokensPerSequence: [5, 3]), training)
    #expect(rows.tokens.array == [2, 6, 9, 3, 6])
    let y = try pipeline.expand(TokenBatch([10, 20, 30, 40, 50], hidden: 1)).array
    #expect(firstBitDifference(y, [-0.0, -0.0, 10, 10, 20, -0.0, -0.0, 40]) == nil)
  }

  @Test func poolingTwiceIsPoolingByTheProduct() throws {
    let layout = try RowLayout(tokensPerSequence: [11, 4])
    let x = try TokenBatch((0..<15).map(Float.init), hidden: 1)
    let twice = try TokenPipeline([WindowPooling(.fixed(2)), WindowPooling(.fixed(2))], causal: false)
    let once = try TokenPipeline([WindowPooling(.fixed(4))], causal: false)
    let a = try twice.reduce(x, layout, training)
    let b = try once.reduce(x, layout, training)
    #expect(relativeError(a.tokens.array, b.tokens.array) < 1e-6)
    #expect(a.layout == b.layout)
  }

  @Test func samplesEveryScaleAlikeOnEveryRankAndTheFirstInEvaluation() throws {
    let (a, b) = (
      try WindowPooling(.sampled([1, 2, 4], seed: 3)), try WindowPooling(.sampled([1, 2, 4], seed: 3))
    )
    let x = try TokenBatch((0..<8).map(Float.init), hidden: 1)
    let layout = RowLayout(sequences: 1, length: 8)
    var counts: [Int: Int] = [:]
    for step in 0..<300 {
      _ = try a.reduce(x, layout, StageContext(step: step, isTraining: true, batch: 0))
      _ = try b.reduce(x, layout, StageContext(step: step, isTraining: true, batch: 1))
      #expect(a.granularity == b.granularity)
      counts[a.granularity, default: 0] += 1
    }
    #expect([1, 2, 4].allSatisfy { (70...130).contains(counts[$0] ?? 0) })
    #expect(try a.reduce(x, layout, evaluation).tokens.rows == 8)
    try a.use(granularity: 4)
    #expect(try a.reduce(x, layout, evaluation).tokens.array == [1.5, 5.5])
    #expect(try a.reduce(x, layout, training).tokens.rows == 2)
  }

  @Test func badWindowsAreRefusedByName() throws {
    let x = try TokenBatch([1, 2, 3, 4, 5], hidden: 1)
    let errors = [
      failure { _ = try WindowPooling(.fixed(0)) },
      failure { _ = try WindowPooling(.sampled([2, -1], seed: 0)) },
      failure { _ = try WindowPooling(.sampled([], seed: 0)) },
      failure {
        _ = try WindowPooling(.sampled([1, 4], seed: 0)).reduce(
          x, RowLayout(tokensPerSequence: [2, 3]), training)
      },
      failure { try WindowPooling(.fixed(2)).use(granularity: 3) },
    ]
    for (error, value) in zip(errors, ["0", "-1", "none", "4", "3"]) {
      #expect(error?.code == .invalidArgument && error?.operation == "pooling")
      #expect(error?.message.contains(value) == true, "\(error?.message ?? "no error")")
    }
  }
}
