import CrosspointCore
import CrosspointRouting
import CrosspointStages
import CrosspointTestSupport
import CrosspointTokens
import Foundation
import Testing

private func learned(
  hidden: Int = 6, alpha: Double = 0.2, hard: Double = 1, seed: UInt64 = 2
) throws -> DeletionGate {
  try DeletionGate(
    hidden: hidden,
    options: DeletionOptions(
      rule: .learned(.init(regulariser: .constant(alpha), hardProbability: hard)), seed: seed))
}

/// z of every row, as the equation says.
private func logits(_ x: [Float], _ parameters: [Float], hidden: Int) -> [Double] {
  stride(from: 0, to: x.count, by: hidden).map { start in
    let row = x[start..<start + hidden].map(Double.init)
    let square = row.reduce(0.0) { $0 + $1 * $1 } / Double(hidden)
    var z = Double(parameters[2 * hidden])
    for d in 0..<hidden {
      z += Double(parameters[hidden + d]) * Double(parameters[d]) * row[d] / (square + 1e-6).squareRoot()
    }
    return z
  }
}

@Suite("Deletion gate")
struct DeletionGateTests {
  let layout = try! RowLayout(
    tokensPerSequence: [9, 0, 7], isPadding: (0..<16).map { $0 == 8 || $0 == 15 })

  @Test(arguments: [0.0, 1.0])
  func gradientsMatchCentralDifferences(hard: Double) throws {
    let gate = try learned(hard: hard)
    gate.parameters = zip(gate.parameters, randomFloats(13, seed: 4)).map { $0 + 0.3 * $1 }
    gate.parameters[12] = 0.2
    let pipeline = try TokenPipeline([gate], causal: true)
    try expectExactGradients(layout, pipeline)
    #expect(gate.isHard == (hard == 1))
    let out = pipeline.statistics[0].fraction
    #expect(hard == 0 ? out == 1 : out > 0.2 && out < 0.8)
  }

  @Test func keepsRowsWithPositiveScoreInOrderAndWeighsThem() throws {
    let gate = try learned()
    gate.parameters[12] = 0
    let pipeline = try TokenPipeline([gate], causal: true)
    let x = randomFloats(16 * 6, seed: 8)
    let z = logits(x, gate.parameters, hidden: 6)
    let kept = (0..<16).filter { z[$0] > 0 && layout.tokensPerRow[$0] > 0 }
    #expect(kept.count > 3 && kept.count < 13)
    let result = try forward(pipeline, TokenBatch(x, hidden: 6), layout, training)
    #expect(result.rows == kept.flatMap { Array(x[$0 * 6..<($0 + 1) * 6]) })
    #expect(result.layout.rowsPerSequence == [kept.filter { $0 < 9 }.count, 0, kept.filter { $0 >= 9 }.count])
    for row in 0..<16 {
      let range = row * 6..<(row + 1) * 6
      guard kept.contains(row) else {
        #expect(firstBitDifference(Array(result.y[range]), Array(x[range])) == nil)
        continue
      }
      let output = ToyExperts().forward(x[range].map(Double.init), expert: 3)
      let share = 1 / (1 + exp(-z[row]))
      let expected = zip(x[range], output).map { Double($0) + share * $1 }
      #expect(relativeError(result.y[range].map(Double.init), expected) < 1e-5)
    }
    var penalty = 0.0
    for row in z.indices where layout.tokensPerRow[row] > 0 { penalty -= 30 / (1 + exp(z[row])) }
    #expect(abs(gate.auxiliaryLoss - 0.2 * penalty / 14) < 1e-5)
  }

  @Test func startsByDeletingAboutAQuarter() throws {
    let gate = try learned(hidden: 64, seed: 11)
    let pipeline = try TokenPipeline([gate], causal: true)
    let x = try randomBatch(rows: 4000, hidden: 64, seed: 3)
    _ = try pipeline.reduce(x, RowLayout(sequences: 4, length: 1000), training)
    #expect(abs(1 - pipeline.statistics[0].fraction - 0.24) < 0.05)
  }

  /// What an earlier batch left, of another number of rows, is not taken for this one's.
  @Test func theOutputsOfAnEarlierBatchAreNotUsed() throws {
    let pipeline = try TokenPipeline([try learned(hard: 0)], causal: true)
    _ = try forward(pipeline, randomBatch(rows: 4, hidden: 6, seed: 1), RowLayout(sequences: 1, length: 4), training)
    let x = try randomBatch(rows: 16, hidden: 6, seed: 2)
    _ = try pipeline.reduce(x, RowLayout(sequences: 1, length: 16), training)
    let error = failure { _ = try pipeline.expandBackward(x) }
    #expect(error?.code == .handleMisuse && error?.message.contains("expand was not called") == true)
  }

  /// Everything deleted: the tokens come back bit for bit, gradients are finite, and only the regulariser is felt.
  @Test(arguments: [RowLayout(sequences: 2, length: 4), RowLayout(sequences: 2, length: 0)])
  func aBatchThatLosesEveryRowWorks(layout: RowLayout) throws {
    let gate = try learned()
    gate.parameters[12] = -50
    let pipeline = try TokenPipeline([gate], causal: true)
    var x = randomFloats(layout.rows * 6, seed: 9)
    if !x.isEmpty { x[3] = -0.0 }
    let batch = try TokenBatch(x, hidden: 6)
    let result = try forward(pipeline, batch, layout, training)
    #expect(result.rows.isEmpty && firstBitDifference(result.y, x) == nil)
    let dy = try randomBatch(rows: layout.rows, hidden: 6, seed: 10)
    let dx = try backward(pipeline, batch, rows: [], dy: dy)
    #expect(dx.allSatisfy(\.isFinite) && pipeline.gradients.allSatisfy(\.isFinite))
    #expect(relativeError(dx, dy.array) < 1e-6)
  }

  @Test func oneSequenceMayLoseEverything() throws {
    let gate = try DeletionGate(hidden: 2, options: DeletionOptions(rule: .supplied))
    let pipeline = try TokenPipeline([gate], causal: true)
    let x = try randomBatch(rows: 6, hidden: 2, seed: 1)
    gate.keep = [false, false, false, true, false, true]
    let result = try forward(pipeline, x, RowLayout(sequences: 2, length: 3), training)
    #expect(result.layout.rowsPerSequence == [0, 2])
    #expect(firstBitDifference(Array(result.y[..<6]), Array(x.array[..<6])) == nil)
    #expect(result.y[6..<8] != x.array[6..<8])
  }

  @Test func aSuppliedWeightIsTheRegularisersAndCountsAreTakenOnce() throws {
    let gate = try DeletionGate(
      hidden: 6,
      options: DeletionOptions(rule: .learned(.init(regulariser: .supplied, hardProbability: 1)), seed: 3))
    let pipeline = try TokenPipeline([gate], causal: true)
    #expect(gate.regulariserWeight == 0 && gate.state.isEmpty && gate.controller == nil)
    gate.suppliedWeight = 0.5
    #expect(gate.regulariserWeight == 0.5)
    try expectExactGradients(layout, pipeline)
    _ = gate.takeCounts()
    let rows = try forward(pipeline, randomBatch(rows: 16, hidden: 6, seed: 8), layout, training).rows.count / 6
    let live = layout.tokensPerRow.count { $0 > 0 }
    #expect(gate.takeCounts() == (live, live - rows))
    #expect(gate.takeCounts() == (0, 0))
    let x = try randomBatch(rows: 16, hidden: 6, seed: 8)
    _ = try forward(pipeline, x, layout, StageContext(step: 0, isTraining: false))
    #expect(gate.takeCounts() == (0, 0), "evaluation is not counted")
  }

  @Test func suppliedMarksAreUsedOnceAndTheirGradientIsExact() throws {
    let gate = try DeletionGate(hidden: 6, options: DeletionOptions(rule: .supplied))
    let pipeline = try TokenPipeline([gate], causal: true)
    try expectExactGradients(layout, pipeline, prepare: { gate.keep = (0..<16).map { $0 % 3 != 0 } })
    let x = try randomBatch(rows: 16, hidden: 6, seed: 1)
    let missing = failure { _ = try pipeline.reduce(x, layout, training) }
    #expect(missing?.operation == "deletion" && missing?.argument == "keep")
    gate.keep = [true]
    #expect(failure { _ = try pipeline.reduce(x, layout, training) }?.message.contains("1 marks for 16") == true)
  }

  @Test(arguments: [0, 0.25, 0.5, 0.9, 1])
  func fixedDeletionIsEvenAndHitsItsRate(rate: Double) throws {
    let gate = try DeletionGate(hidden: 1, options: DeletionOptions(rule: .fixed(rate: rate)))
    let pipeline = try TokenPipeline([gate], causal: true)
    let x = try TokenBatch((0..<200).map { Float($0 % 100) }, hidden: 1)
    let rows = try pipeline.reduce(x, RowLayout(sequences: 2, length: 100), training)
    #expect(abs(rows.tokens.rows - Int((200 * (1 - rate)).rounded())) <= 2)
    let places = rows.tokens.array.prefix(rows.layout.rowsPerSequence[0])
    #expect(rate == 1 || places.first == 0)
    for (a, b) in zip(places, places.dropFirst()) { #expect(Double(b - a) <= (1 / (1 - rate)).rounded(.up) + 1e-3) }
  }

  @Test(arguments: [0, 0.3, 1])
  func randomDeletionHitsItsRateAndRepeats(rate: Double) throws {
    func kept(_ context: StageContext) throws -> [Float] {
      let gate = try DeletionGate(hidden: 1, options: DeletionOptions(rule: .random(rate: rate), seed: 7))
      let x = try TokenBatch((0..<4000).map(Float.init), hidden: 1)
      return try TokenPipeline([gate], causal: true).reduce(x, RowLayout(sequences: 1, length: 4000), context)
        .tokens.array
    }
    let once = try kept(training)
    #expect(abs(1 - Double(once.count) / 4000 - rate) < 0.03)
    #expect(try kept(training) == once)
    guard rate == 0.3 else { return }
    #expect(try kept(StageContext(step: 1, isTraining: true)) != once)
    #expect(try kept(StageContext(step: 0, isTraining: true, batch: 1)) != once)
  }

  @Test func hardStepsAreDrawnAtTheirProbabilityAndAlikeOnEveryRank() throws {
    let (a, b) = (try learned(hard: 0.3), try learned(hard: 0.3))
    let x = try randomBatch(rows: 2, hidden: 6, seed: 1)
    var count = 0
    for step in 0..<1000 {
      for (batch, gate) in [a, b].enumerated() {
        _ = try gate.reduce(
          x, RowLayout(sequences: 1, length: 2), StageContext(step: step, isTraining: true, batch: batch))
      }
      #expect(a.isHard == b.isHard)
      if a.isHard { count += 1 }
    }
    #expect(abs(count - 300) < 50)
  }

  /// Steps 0 to 9 delete nothing, 10 to 19 ever more.
  @Test(
    arguments: [
      .random(rate: 0.5), .fixed(rate: 0.5), .learned(.init(regulariser: .controlled(target: 0.5), hardProbability: 1)),
    ] as [DeletionOptions.Rule])
  func nothingIsDeletedBeforeTheWarmUpIsOver(rule: DeletionOptions.Rule) throws {
    let options = DeletionOptions(rule: rule, warmUp: 10, seed: 2)
    #expect([0, 9, 10, 15, 20, 100].map(options.warmth(step:)) == [0, 0, 0, 0.5, 1, 1])
    let gate = try DeletionGate(hidden: 6, options: options)
    let x = try randomBatch(rows: 1024, hidden: 6, seed: 1)
    let layout = RowLayout(sequences: 2, length: 512)
    func kept(_ step: Int, isTraining: Bool = true) throws -> Int {
      let rows = try gate.reduce(x, layout, StageContext(step: step, isTraining: isTraining)).tokens.rows
      try gate.step { _ in }
      return rows
    }
    for step in 0..<10 {
      #expect(try kept(step) == 1024)
      #expect(gate.regulariserWeight == 0)
    }
    #expect(try kept(9, isTraining: false) < 1024, "evaluation deletes")
    if gate.controller == nil {
      #expect(abs(try kept(15) - 768) < 60)
      #expect(abs(try kept(20) - 512) < 60)
    } else {
      #expect(try kept(15) < 1024)
      #expect(gate.regulariserWeight != 0)
    }
  }

  @Test func theEvaluationThresholdMovesEvaluationOnly() throws {
    let gate = try learned()
    let x = try randomBatch(rows: 300, hidden: 6, seed: 6)
    let layout = RowLayout(sequences: 1, length: 300)
    func kept(_ context: StageContext) throws -> Int { try gate.reduce(x, layout, context).tokens.rows }
    let usual = try kept(training)
    #expect(try kept(evaluation) == usual)
    try gate.setEvaluationThreshold(0.7)
    #expect(try kept(evaluation) < usual && kept(training) == usual)
    let z = logits(x.array, gate.parameters, hidden: 6)
    #expect(try kept(evaluation) == z.filter { $0 > 0.847_297_860_387 }.count)
    try gate.setEvaluationThreshold(0)
    #expect(try kept(evaluation) == 300)
    for bad in [1, 1.5, -0.1, .nan] {
      let error = failure { try gate.setEvaluationThreshold(bad) }
      #expect(error?.operation == "deletion" && error?.argument == "evaluationThreshold")
      #expect(error?.message.contains("\(bad)") == true)
    }
  }

  @Test(arguments: [-0.1, 1.1, .nan, .infinity])
  func ratesOutsideZeroToOneAreRefusedByName(value: Double) throws {
    let rules: [(DeletionOptions.Rule, String)] = [
      (.random(rate: value), "rate"), (.fixed(rate: value), "rate"),
      (.learned(.init(regulariser: .controlled(target: value))), "target"),
      (.learned(.init(regulariser: .constant(0), hardProbability: value)), "hardProbability"),
    ]
    for (rule, argument) in rules {
      let error = failure { _ = try DeletionGate(hidden: 2, options: DeletionOptions(rule: rule)) }
      #expect(error?.code == .invalidArgument && error?.operation == "deletion" && error?.argument == argument)
      #expect(error?.message.contains("\(value)") == true)
    }
    let cold = failure { _ = try DeletionGate(hidden: 2, options: DeletionOptions(rule: .supplied, warmUp: -3)) }
    #expect(cold?.argument == "warmUp" && cold?.message.contains("-3") == true)
    guard value != 1.1 else { return }
    for regulariser: DeletionOptions.Learning.Regulariser in [
      .constant(value), .controlled(target: 0.5, proportional: value), .controlled(target: 0.5, integral: value),
    ] {
      let options = DeletionOptions(rule: .learned(.init(regulariser: regulariser)))
      #expect(failure { _ = try DeletionGate(hidden: 2, options: options) }?.message.contains("\(value)") == true)
    }
  }

  @Test func aRowWithoutAFiniteScoreIsNamedUnlessItIsPadding() throws {
    let gate = try learned(hidden: 2)
    let x = try TokenBatch([1, 2, .nan, 3, .infinity, 1], hidden: 2)
    let padded = try RowLayout(tokensPerSequence: [3], isPadding: [false, true, false])
    let error = failure { _ = try gate.reduce(x, padded, training) }
    #expect(error?.code == .nonFinite && error?.operation == "deletion" && error?.message.contains("row 2") == true)
  }
}
