import CrosspointCore
import CrosspointFabric
import CrosspointRouting
import CrosspointStages
import CrosspointTestSupport
import CrosspointTokens
import Testing

@Suite("Token pipeline")
struct TokenPipelineTests {
  private func controlled(hidden: Int = 4, target: Double = 0.5, seed: UInt64 = 1) throws -> DeletionGate {
    try DeletionGate(
      hidden: hidden,
      options: DeletionOptions(rule: .learned(.init(regulariser: .controlled(target: target))), seed: seed))
  }

  private func learnedMerging() throws -> TokenMerging {
    try TokenMerging(.init(threshold: .learned(rate: 0.3), window: 2, isCausal: true))
  }

  @Test func withoutStagesTokensPassThrough() throws {
    let pipeline = try TokenPipeline([], causal: true)
    let x = try randomBatch(rows: 3, hidden: 4, seed: 1)
    let layout = RowLayout(sequences: 1, length: 3)
    #expect(try pipeline.reduce(x, layout, training).tokens.array == x.array)
    #expect(try pipeline.expand(TokenBatch(x.array, hidden: 4)).array == x.array)
    #expect(try pipeline.expandBackward(x).array == x.array)
    #expect(try pipeline.reduceBackward(x, tokens: x).array == x.array)
    #expect(pipeline.parameters.isEmpty)
  }

  @Test func rowsThatAreNoFloatsAreRefused() throws {
    let x = try TokenBatch(rows: 3, hidden: 4, type: .bf16)
    let layout = RowLayout(sequences: 1, length: 3)
    let stages: [any TokenStage] = [
      try controlled(), try WindowPooling(.fixed(2)),
      try TokenMerging(.init(threshold: .given(0.5), window: 3, isCausal: false)),
    ]
    for stage in stages {
      let error = failure { _ = try stage.reduce(x, layout, training) }
      #expect(error?.code == .invalidArgument && error?.message.contains("bf16 rows") == true, "\(stage.name)")
    }
    #expect(failure { _ = try TokenPipeline([], causal: true).reduce(x, layout, training) }?.argument == "tokens")
    let router = try LinearRouter(
      hidden: 4, router: TopKRouter(experts: 2, topK: 1, scoring: .topKThenSoftmax), seed: 1)
    #expect(failure { _ = try router.route(x) }?.argument == "tokens")
    var sum = try TokenBatch(rows: 3, hidden: 4)
    do throws(CrosspointError) {
      try sum.add(x)
      Issue.record("bf16 was added to floats")
    } catch {
      #expect(error.argument == "other")
    }
  }

  @Test func aStageThatLooksAheadIsRefusedByName() throws {
    let pooling = try WindowPooling(.fixed(4))
    let error = failure { _ = try TokenPipeline([controlled(), pooling], causal: true) }
    #expect(error?.code == .invalidArgument && error?.argument == "pooling")
    #expect(error?.message.contains("pooling:windows=4") == true && error?.message.contains("stage 1") == true)
    let merging = try TokenMerging(.init(threshold: .given(0.5), window: 3, isCausal: false), name: "similar")
    #expect(failure { _ = try TokenPipeline([merging], causal: true) }?.argument == "similar")
    #expect(throws: Never.self) { try TokenPipeline([controlled(), pooling], causal: false) }
    #expect(throws: Never.self) {
      try TokenPipeline([WindowPooling(.fixed(4), isShifted: true), controlled()], causal: true)
    }
  }

  @Test func countsTokensInAndRowsOutPerStage() throws {
    let gate = try DeletionGate(hidden: 1, options: DeletionOptions(rule: .fixed(rate: 0.5)), name: "half")
    let pipeline = try TokenPipeline([WindowPooling(.fixed(2)), gate], causal: false)
    let x = try TokenBatch((0..<10).map(Float.init), hidden: 1)
    let layout = try RowLayout(tokensPerSequence: [10], isPadding: (0..<10).map { $0 == 9 })
    for _ in 0..<2 { _ = try pipeline.reduce(x, layout, training) }
    let (pooled, halved) = (pipeline.statistics[0], pipeline.statistics[1])
    #expect(pooled.name == "pooling" && pooled.rowsIn == 18 && pooled.tokensIn == 18 && pooled.rowsOut == 10)
    #expect(halved.name == "half" && halved.rowsIn == 10 && halved.tokensIn == 18 && halved.rowsOut == 6)
    var sum = pooled
    sum += pooled
    #expect(sum.rowsOut == 20 && sum.fraction == pooled.fraction)
    sum.reset()
    #expect(sum.rowsIn == 0 && sum.fraction == 1)
  }

  @Test func parametersAndGradientsAreThoseOfTheStagesInOrder() throws {
    let (a, b) = (try controlled(seed: 1), try controlled(hidden: 2, seed: 2))
    let pipeline = try TokenPipeline([a, WindowPooling(.fixed(1)), b], causal: true)
    #expect(pipeline.parameters == a.parameters + b.parameters && pipeline.parameters.count == 9 + 5)
    pipeline.parameters = (0..<14).map(Float.init)
    #expect(a.parameters.last == 8 && b.parameters.first == 9)
    pipeline.gradients = [Float](repeating: 1, count: 14)
    #expect(b.gradients == [1, 1, 1, 1, 1])
    pipeline.resetGradients()
    #expect(a.gradients.allSatisfy { $0 == 0 } && b.gradients.allSatisfy { $0 == 0 })
  }

  @Test func aRestoredPipelineContinuesBitForBit() throws {
    func make() throws -> TokenPipeline {
      try TokenPipeline(
        [controlled(), WindowPooling(.sampled([1, 2], seed: 3), isShifted: true), learnedMerging()], causal: true)
    }
    func advance(_ pipeline: TokenPipeline, _ steps: Range<Int>) throws -> [Float] {
      var trace: [Float] = []
      for step in steps {
        let x = try clusteredBatch(rows: 24, hidden: 4, noise: 0.5, seed: UInt64(step))
        let layout = RowLayout(sequences: 2, length: 12)
        let context = StageContext(step: step, isTraining: true)
        let result = try forward(pipeline, x, layout, context)
        trace += result.y
        _ = try backward(pipeline, x, rows: result.rows, dy: x)
        pipeline.parameters = zip(pipeline.parameters, pipeline.gradients).map { $0 - 0.01 * $1 }
        pipeline.resetGradients()
        try pipeline.step()
      }
      return trace
    }
    let whole = try make()
    _ = try advance(whole, 0..<10)
    let (parameters, state) = (whole.parameters, whole.state)
    let resumed = try make()
    resumed.parameters = parameters
    try resumed.restore(state)
    #expect(state != (try make()).state)
    #expect(firstBitDifference(try advance(whole, 10..<20), try advance(resumed, 10..<20)) == nil)
    #expect(whole.state == resumed.state)
  }

  @Test func theStateOfAnotherPipelineIsRefused() throws {
    let pipeline = try TokenPipeline([controlled(), learnedMerging()], causal: true)
    let state = pipeline.state
    let others: [(TokenPipeline, String)] = [
      (try TokenPipeline([controlled()], causal: true), "stages"),
      (try TokenPipeline([controlled(target: 0.6), learnedMerging()], causal: true), "deletion"),
      (try TokenPipeline([controlled(hidden: 5), learnedMerging()], causal: true), "deletion"),
      (
        try TokenPipeline(
          [controlled(), TokenMerging(.init(threshold: .learned(rate: 0.31), window: 2, isCausal: true))], causal: true),
        "merging"
      ),
      (try TokenPipeline([learnedMerging(), controlled()], causal: true), "merging"),
    ]
    for (other, argument) in others {
      let before = other.state
      let error = failure { try other.restore(state) }
      #expect(error?.code == .checkpointMismatch && error?.argument == argument)
      #expect(other.state == before)
    }
    for length in 0..<state.count {
      #expect(failure { try pipeline.restore(Array(state[..<length])) }?.code == .checkpointMismatch)
    }
    #expect(failure { try pipeline.restore(state + [0]) }?.code == .checkpointMismatch)
    var long = state
    long[2] = .max
    #expect(failure { try pipeline.restore(long) }?.code == .checkpointMismatch)
    try pipeline.restore(state)
  }

  @Test func aStateThatALaterStageRefusesChangesNoStage() throws {
    let pipeline = try TokenPipeline([controlled(), learnedMerging()], causal: true)
    let before = pipeline.state
    var state = before
    state[3] = (1.5).bitPattern
    state[state.count - 1] = Double.nan.bitPattern
    let error = failure { try pipeline.restore(state) }
    #expect(error?.code == .checkpointMismatch && error?.operation == "merging")
    #expect(pipeline.state == before)
    state[state.count - 1] = before[before.count - 1]
    try pipeline.restore(state)
    #expect(pipeline.state == state && state != before)
  }

  @Test func wrongShapesAndOrderAreTypedErrors() throws {
    let pipeline = try TokenPipeline([controlled()], causal: true)
    let x = try randomBatch(rows: 3, hidden: 4, seed: 1)
    #expect(failure { _ = try pipeline.expandBackward(x) }?.code == .handleMisuse)
    #expect(failure { _ = try pipeline.reduce(x, RowLayout(sequences: 1, length: 4), training) }?.argument == "layout")
    let narrow = try randomBatch(rows: 3, hidden: 5, seed: 1)
    let error = failure { _ = try pipeline.reduce(narrow, RowLayout(sequences: 1, length: 3), training) }
    #expect(error?.operation == "deletion" && error?.message.contains("3 × 5") == true)
    _ = try pipeline.reduce(x, RowLayout(sequences: 1, length: 3), training)
    #expect(failure { _ = try pipeline.expand(TokenBatch(rows: 9, hidden: 4)) }?.argument == "outputs")
    #expect(failure { _ = try pipeline.expandBackward(TokenBatch(rows: 2, hidden: 4)) }?.argument == "dy")
    #expect(failure { _ = try RowLayout(tokensPerSequence: [2, -1]) }?.message.contains("-1") == true)
    #expect(failure { _ = try RowLayout(tokensPerSequence: [2], isPadding: [true]) }?.argument == "isPadding")
  }

  @Test func aForgottenExpandBackwardMayBeMadeGood() throws {
    let x = try randomBatch(rows: 8, hidden: 4, seed: 1)
    func gradient(isForgotten: Bool) throws -> [Float] {
      let pipeline = try TokenPipeline([WindowPooling(.fixed(2), isShifted: true), controlled()], causal: true)
      let result = try forward(pipeline, x, RowLayout(sequences: 1, length: 8), training)
      if isForgotten {
        let dRows = try TokenBatch(result.rows, hidden: 4)
        #expect(failure { _ = try pipeline.reduceBackward(dRows, tokens: x) }?.code == .handleMisuse)
      }
      return try backward(pipeline, x, rows: result.rows, dy: x) + pipeline.gradients
    }
    #expect(try firstBitDifference(gradient(isForgotten: true), gradient(isForgotten: false)) == nil)
  }

  /// A batch that one rank or several cannot take fails everywhere, and the pipeline goes on afterwards.
  @Test(arguments: [[2], [0, 2]])
  func allRanksFailTogether(bad: [Int]) throws {
    let errors = try SimulatedCluster(ranks: 3).run { fabric in
      let pipeline = try TokenPipeline([WindowPooling(.fixed(4), isShifted: true)], causal: true)
      let reduce: CountReduction = { counts throws(CrosspointError) in
        try counts.withUnsafeMutableBufferPointer { values throws(CrosspointError) in
          try fabric.allreduce(values, operation: "stages")
        }
      }
      func attempt(length: Int) -> CrosspointError? {
        failure {
          let x = try randomBatch(rows: length, hidden: 2, seed: 1)
          _ = try pipeline.reduce(x, RowLayout(sequences: 1, length: length), training, reduceCounts: reduce)
        }
      }
      let error = attempt(length: bad.contains(fabric.rank) ? 3 : 8)
      #expect(attempt(length: 8) == nil)
      return error
    }
    for (rank, error) in errors.enumerated() {
      let isOwn = bad.count == 1 || bad.contains(rank)
      #expect(error?.code == (isOwn ? .invalidArgument : .refusedElsewhere))
      if isOwn {
        #expect(error?.operation == "pooling" && error?.message.contains("a window of 4") == true)
      } else {
        #expect(error?.message.contains("2 other ranks") == true)
      }
    }
  }
}
