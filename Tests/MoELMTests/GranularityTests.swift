import Crosspoint
import CrosspointTestSupport
import Foundation
import Testing

@testable import MoELM

/// A tiny masked model that pools.
func pooledOptions(_ granularities: [Int] = [1, 2, 3], separateRouters: Bool = false) -> TrainingOptions {
  var options = tinyOptions()
  options.shape.objective = .masked
  options.shape.maskFraction = 0.3
  options.shape.stages.granularities = granularities
  options.shape.stages.separateRouters = separateRouters
  return options
}

@Suite struct GranularityTests {
  private func summary(_ options: TrainingOptions, ranks: Int) throws -> RunSummary {
    let corpus = try tinyCorpus(options)
    return try SimulatedCluster(ranks: ranks).run { fabric in
      try TrainingRun(fabric: fabric, corpus: corpus, options: options, run: RunOptions.standard, quiet: true).train()
    }[0]
  }

  @Test func oneModelServesEveryGranularity() throws {
    let one = try summary(pooledOptions(), ranks: 1)
    #expect(one.granularities.map(\.granularity) == [1, 2, 3])
    #expect(one.valBitsPerByte == one.granularities[0].valBitsPerByte)
    #expect(Set(one.granularities.map(\.valBitsPerByte)).count == 3)
    #expect(one.overlaps.map(\.granularity) == [2, 3] && one.overlaps.allSatisfy { $0.block == 1 && $0.mean < 1 })
    #expect(one.jaccard != nil && one.trainingOverlapsLastQuarter.allSatisfy { $0.tokens == 32 })
    // Rows: 8, 4 and 3 of each 8 tokens; a third of the passes each.
    #expect(abs(one.rowsSentFraction - Double(8 + 4 + 3) / 24) < 1e-12)
    for ranks in [2, 4] {
      let other = try summary(pooledOptions(), ranks: ranks)
      #expect(relativeError(other.granularities.map(\.valBitsPerByte), one.granularities.map(\.valBitsPerByte)) < 1e-4)
      #expect(relativeError(other.overlaps.map(\.sum), one.overlaps.map(\.sum)) < 1e-2)
    }
  }

  @Test func aSampledScheduleTakesOneGranularityAStep() throws {
    var options = pooledOptions([1, 4])
    options.shape.stages.granularitySchedule = .sampled
    options.steps = 12
    let corpus = try tinyCorpus(options)
    let rows = try SimulatedCluster(ranks: 3).run { [options] fabric in
      let trainer = try Trainer(fabric: fabric, corpus: corpus, options: options)
      return try (0..<12).map { _ in try trainer.step().traffic.rowsSent }
    }
    #expect(Set(rows[0]) == [64, 16] && rows[0] == rows[1] && rows[0] == rows[2])
  }

  @Test func evaluationIsAboutTheGranularityAskedFor() throws {
    let folder = try TemporaryFolder()
    let options = pooledOptions()
    let corpus = try tinyCorpus(options)
    _ = try SimulatedCluster(ranks: 1).run { fabric in
      let trainer = try Trainer(fabric: fabric, corpus: corpus, options: options)
      _ = try trainer.step()
      try trainer.saveCheckpoint(folder.file("c"))
    }
    try Data(tinyText()).write(to: URL(fileURLWithPath: folder.file("text")))
    func evaluate(_ granularity: Int?) throws -> RunSummary {
      var options = TrainingOptions()
      options.batch = 4
      options.evalWindows = 3
      options.shape.stages.evaluation.granularity = granularity
      return try SimulatedCluster(ranks: 2).run { [options] fabric in
        try Evaluation.run(
          fabric: fabric, data: folder.file("text"), options: options, checkpoint: folder.file("c"))
      }[0]
    }
    let all = try evaluate(nil)
    for (place, granularity) in [1, 2, 3].enumerated() {
      #expect(try evaluate(granularity).valBitsPerByte == all.granularities[place].valBitsPerByte)
    }
    let error = #expect(throws: CrosspointError.self) { try evaluate(5) }
    #expect(error?.argument == "granularity")
  }

  @Test func routersOfTheirOwnAreTensorsOfTheirOwn() throws {
    let names = try LanguageModel.sharedSpecifications(pooledOptions(separateRouters: true).shape, .init()).map(\.name)
    #expect(["block1.gate", "block1.gate2", "block1.gate3"].allSatisfy(names.contains))
    let shared = try LanguageModel.sharedSpecifications(pooledOptions().shape, .init()).map(\.name)
    #expect(shared.filter { $0.hasPrefix("block1.gate") } == ["block1.gate"])
    _ = try summary(pooledOptions(separateRouters: true), ranks: 2)
  }

  @Test func aShiftedWindowDoesNotLookAhead() throws {
    var options = tinyOptions()
    options.shape.stages.granularities = [3]
    #expect(throws: CrosspointError.self) { try options.validate() }
    options.shape.stages.granularityShift = true
    let corpus = try tinyCorpus(options)
    try SimulatedCluster(ranks: 1).run { [options] fabric in
      let trainer = try Trainer(fabric: fabric, corpus: corpus, options: options)
      let (layer, width) = (trainer.model.layers[0], options.shape.width)
      func outputs(lastMovedBy step: Float) throws -> [Float] {
        let x = try randomBatch(rows: 8, hidden: width, seed: 4)
        for place in 0..<width { x.row(7)[place] += step }
        let y = try FloatBuffer(8 * width)
        let pass = trainer.pass(isTraining: false, granularity: 3)
        _ = try layer.forward(x, addingTo: y.matrix(8, width), pass) { false }
        layer.forget()
        return Array(y.storage)
      }
      let before = try outputs(lastMovedBy: 0)
      #expect(before[..<(3 * width)].allSatisfy { $0 == 0 }, "the first window gets nothing")
      #expect(before[(3 * width)...].contains { $0 != 0 })
      // The last row is in the last window, whose output nobody reads.
      #expect(try firstBitDifference(outputs(lastMovedBy: 1), before) == nil)
    }
  }
}
