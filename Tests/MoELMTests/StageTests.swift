import Crosspoint
import CrosspointTestSupport
import Foundation
import Testing

@testable import MoELM

/// A tiny model with a deletion in front of its experts.
/// Every kind of learned gate.
let everyGate: [(StageOptions.DeletionForm, StageOptions.DeletionScope)] = [
  (.experts, .model), (.experts, .layer), (.attention, .model),
]

func gatedOptions(
  _ deletion: StageOptions.Deletion = .gate, form: StageOptions.DeletionForm = .experts,
  scope: StageOptions.DeletionScope = .model, hard: Double = 0.5
) -> TrainingOptions {
  var options = tinyOptions()
  options.shape.stages.deletionRate = 0.5
  options.shape.stages.deletion = deletion
  options.shape.stages.deletionForm = form
  options.shape.stages.deletionScope = scope
  options.shape.stages.deletionHardProbability = hard
  return options
}

@Suite struct StageTests {
  /// What a run shows after each step, and at its end.
  private func curve(_ options: TrainingOptions, ranks: Int) throws -> [Double] {
    let corpus = try tinyCorpus(options)
    return try SimulatedCluster(ranks: ranks).run { fabric in
      let trainer = try Trainer(fabric: fabric, corpus: corpus, options: options)
      var values: [Double] = []
      while trainer.progress.step < options.steps {
        let report = try trainer.step()
        values += [report.bitsPerByte, report.stageLoss, report.deletionRate ?? 0]
      }
      return values + [try trainer.evaluate()]
    }[0]
  }

  @Test(arguments: everyGate) func anyRankCountFollowsTheSameCurveBehindAGate(
    form: StageOptions.DeletionForm, scope: StageOptions.DeletionScope
  ) throws {
    let options = gatedOptions(form: form, scope: scope)
    let one = try curve(options, ranks: 1)
    for ranks in [2, 4, 5] {  // 4: a rank without experts; 5: without sequences, too
      #expect(relativeError(try curve(options, ranks: ranks), one) < 1e-4, "\(ranks) ranks")
    }
  }

  @Test func oneControllerHoldsTheRateOfAllLayers() throws {
    var options = gatedOptions(hard: 1)
    options.shape.blocks = 4  // experts in two of them
    let corpus = try tinyCorpus(options)
    try SimulatedCluster(ranks: 2).run { [options] fabric in
      let trainer = try Trainer(fabric: fabric, corpus: corpus, options: options)
      let gates = trainer.model.layers.compactMap(\.stages.deletion)
      #expect(gates.count == 2)
      for _ in 0..<3 {
        let report = try trainer.step()
        let rows = try #require(report.stages.first { $0.name == "deletion" })
        #expect(rows.rowsIn == 2 * 32)
        #expect(report.deletionRate == 1 - rows.fraction)
        #expect(gates[0].regulariserWeight == gates[1].regulariserWeight)
      }
      #expect(gates[0].regulariserWeight != 0)
    }
  }

  @Test func tokensThatAreDroppedAllLeaveTheStreamAsItIs() throws {
    var options = gatedOptions(hard: 1)
    options.shape.loadBalance = 0
    let corpus = try tinyCorpus(options)
    try SimulatedCluster(ranks: 2).run { [options] fabric in
      let trainer = try Trainer(fabric: fabric, corpus: corpus, options: options)
      let gate = trainer.model.shared["block1.stages"].value
      for place in 0..<gate.count - 1 { gate.base[place] = 0 }
      gate.base[gate.count - 1] = -1  // every score is −1
      let report = try trainer.step()
      #expect(report.traffic.rowsRouted == 0 && report.traffic.rowsOffered == 2 * 32)
      #expect(report.deletionRate == 1)
      #expect(report.gradientNorm.isFinite)
      #expect(trainer.model.experts.gradients.allSatisfy { $0 == 0 })
      #expect(try trainer.evaluate().isFinite)
    }
  }

  @Test func rowsAndBytesAreHeldAgainstWhatWouldTravelWithoutStages() throws {
    func summary(_ options: TrainingOptions) throws -> RunSummary {
      let corpus = try tinyCorpus(options)
      return try SimulatedCluster(ranks: 2).run { fabric in
        try TrainingRun(fabric: fabric, corpus: corpus, options: options, run: RunOptions.standard, quiet: true).train()
      }[0]
    }
    let whole = try summary(tinyOptions())
    #expect(whole.rowsSentFraction == 1 && whole.stages.isEmpty && whole.stageSeconds == 0)
    let fixed = try summary(gatedOptions(.fixed))
    #expect(fixed.rowsSentFraction == 0.5)
    #expect(fixed.stages.map(\.name) == ["deletion"])
    #expect(fixed.stages[0].tokensIn == 6 * 32 && fixed.stages[0].rowsOut == 6 * 16)
    #expect(fixed.stageSeconds > 0 && fixed.stageSeconds < fixed.stepSeconds)
    #expect(abs(fixed.uncompressedBytes / whole.uncompressedBytes - 1) < 0.3)  // other rows, other ranks
    // Announcements remain.
    #expect(fixed.wireFraction < 0.8 * whole.wireFraction && fixed.wireFraction > 0.4)
    #expect(fixed.options["deletion"] == "fixed" && fixed.options["deletion-rate"] == "0.5")
    // Clusters and codes take their part of what the stage leaves.
    var all = gatedOptions(.fixed)
    all.exchange.compression = .crossPolytope(.init())
    all.exchange.wire = .init(.bf16)
    #expect(try summary(all).rowsSentFraction < 0.5)
    #expect(try summary(all).wireFraction < fixed.wireFraction)
  }

  @Test(arguments: everyGate) func sixStepsEqualThreeAndThreeResumed(
    form: StageOptions.DeletionForm, scope: StageOptions.DeletionScope
  ) throws {
    let folder = try TemporaryFolder()
    let options = gatedOptions(form: form, scope: scope)
    let corpus = try tinyCorpus(options)
    func train(from: String? = nil, until last: Int, to: String? = nil) throws -> [[UInt64]] {
      try SimulatedCluster(ranks: 2).run { fabric in
        let trainer = try Trainer(fabric: fabric, corpus: corpus, options: options)
        if let from { try trainer.resume(from) }
        while trainer.progress.step < last { _ = try trainer.step() }
        if let to { try trainer.saveCheckpoint(to) }
        let floats = Array(trainer.model.shared.all) + Array(trainer.model.experts.all)
        return floats.map { UInt64($0.bitPattern) } + trainer.model.stageState.flatMap { $0 }
          + trainer.progress.moved.stages.flatMap { [$0.tokensIn, $0.rowsIn, $0.rowsOut] }.map(\.bitPattern)
      }
    }
    let straight = try train(until: 6)
    _ = try train(until: 3, to: folder.file("c"))
    #expect(try train(from: folder.file("c"), until: 6) == straight)
    #expect(straight[0].contains { $0 > UInt64(Int64.max) || $0 > 1 << 60 }, "the controller has moved")
  }

  @Test func aCheckpointOfAnotherPipelineIsRefusedByName() throws {
    let folder = try TemporaryFolder()
    let options = gatedOptions()
    let corpus = try tinyCorpus(options)
    _ = try SimulatedCluster(ranks: 1).run { fabric in
      try Trainer(fabric: fabric, corpus: corpus, options: options).saveCheckpoint(folder.file("c"))
    }
    let changes: [(String, (inout StageOptions) -> Void)] = [
      ("deletion-rate", { $0.deletionRate = 0.4 }), ("deletion-rate", { $0.deletionRate = 0 }),
      ("deletion", { $0.deletion = .random }), ("deletion-form", { $0.deletionForm = .attention }),
      ("deletion-scope", { $0.deletionScope = .layer }),
      ("deletion-hard-probability", { $0.deletionHardProbability = 0.1 }),
    ]
    for (key, change) in changes {
      var other = options
      change(&other.shape.stages)
      let results = SimulatedCluster(ranks: 2).results { [other] fabric in
        try Trainer(fabric: fabric, corpus: corpus, options: other).resume(folder.file("c"))
      }
      for result in results {
        let error = #expect(throws: CrosspointError.self) { try result.get() }
        #expect(error?.code == .checkpointMismatch && error?.argument == key)
      }
    }
  }

  @Test func evaluationDeletesMoreOrFewerAsItsThresholdSays() throws {
    let folder = try TemporaryFolder()
    let options = gatedOptions()
    let corpus = try tinyCorpus(options)
    _ = try SimulatedCluster(ranks: 1).run { fabric in
      let trainer = try Trainer(fabric: fabric, corpus: corpus, options: options)
      while trainer.progress.step < options.steps { _ = try trainer.step() }
      try trainer.saveCheckpoint(folder.file("c"))
    }
    try Data(tinyText()).write(to: URL(fileURLWithPath: folder.file("text")))
    func bits(_ threshold: Double?) throws -> RunSummary {
      var options = TrainingOptions()
      options.batch = 4
      options.shape.stages.evaluation.deletionThreshold = threshold
      return try SimulatedCluster(ranks: 1).run { [options] fabric in
        try Evaluation.run(
          fabric: fabric, data: folder.file("text"), options: options, checkpoint: folder.file("c"))
      }[0]
    }
    #expect(try bits(nil).valBitsPerByte == bits(0.5).valBitsPerByte)
    let (all, few) = (try bits(0), try bits(0.9))
    #expect(all.evaluatedStages[0].fraction == 1)
    #expect(few.evaluatedStages[0].fraction < 0.5)
    #expect(all.valBitsPerByte != few.valBitsPerByte)
    let error = #expect(throws: CrosspointError.self) { try bits(1) }
    #expect(error?.argument == "deletion-threshold")
  }
}
