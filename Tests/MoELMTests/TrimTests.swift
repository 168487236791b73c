import Crosspoint
import CrosspointTestSupport
import Foundation
import Testing

@testable import MoELM

@Suite struct TrimTests {
  private func options(_ change: (inout StageOptions) -> Void) -> TrainingOptions {
    var options = tinyOptions()
    change(&options.shape.stages)
    return options
  }

  private func summary(_ options: TrainingOptions, ranks: Int = 2) throws -> RunSummary {
    let corpus = try tinyCorpus(options)
    return try SimulatedCluster(ranks: ranks).run { fabric in
      try TrainingRun(fabric: fabric, corpus: corpus, options: options, run: RunOptions.standard, quiet: true).train()
    }[0]
  }

  @Test func pruningDropsSecondExpertsOnly() throws {
    let none = try summary(options { $0.prune = .threshold(0) })
    #expect(none.keptFurtherExperts == 1 && none.rowsSentFraction == 1)
    let all = try summary(
      options {
        $0.prune = .threshold(1)
        $0.pruneProtect = 0
      })
    #expect(all.keptFurtherExperts == 0 && all.rowsSentFraction == 0.5)
    let some = try summary(
      options {
        $0.prune = .threshold(1)
        $0.pruneProtect = 0.25
      })
    #expect(some.keptFurtherExperts == 0.25 && some.rowsSentFraction == 0.625)
    #expect(some.stages.map(\.name) == [StageCount.furtherExperts])
  }

  @Test func anAutomaticThresholdDropsTheShareAskedFor() throws {
    var options = options {
      $0.prune = .auto
      $0.pruneShare = 0.4
      $0.pruneProtect = 0
    }
    options.steps = 80
    let summary = try summary(options)
    #expect(abs(1 - (summary.keptFurtherExperts ?? 0) - 0.4) < 0.05)
  }

  @Test func theRandomSecondExpertIsForTrainingOnly() throws {
    let summary = try summary(options { $0.secondExpert = .random })
    #expect(summary.stages[0].fraction > 0.5 && summary.stages[0].fraction < 1)
    #expect(summary.evaluatedStages[0].fraction == 1)
  }

  @Test func groupsOfExpertsLimitARouter() throws {
    var limited = options {
      $0.routerGroups = 2
      $0.routerGroupLimit = 1
    }
    limited.shape.experts = 4
    let corpus = try tinyCorpus(limited)
    let routing = try SimulatedCluster(ranks: 1).run { [limited] fabric in
      let trainer = try Trainer(fabric: fabric, corpus: corpus, options: limited)
      trainer.readBatch()
      _ = try trainer.propagate()
      return trainer.model.layers[0].layer.decision.routing
    }[0]
    for token in 0..<routing.tokens {
      #expect(routing.topkIndices[2 * token] / 2 == routing.topkIndices[2 * token + 1] / 2)
    }
  }

  @Test func groupsAtAPriceAreAsManyAsAskedForAndResumeBitForBit() throws {
    let folder = try TemporaryFolder()
    var options = options {
      $0.routerGroups = 4
      $0.groupsPerToken = 1.5
    }
    (options.shape.experts, options.shape.topK) = (8, 2)
    options.exchange.copies = .perRank
    options.steps = 120
    let corpus = try tinyCorpus(options)
    func train(from: String? = nil, until last: Int, to: String? = nil) throws -> (state: [[UInt64]], groups: Double) {
      let ranks = try SimulatedCluster(ranks: 4).run { [options] fabric in
        let trainer = try Trainer(fabric: fabric, corpus: corpus, options: options)
        if let from { try trainer.resume(from) }
        var (used, tokens) = (0, 0)
        while trainer.progress.step < last {
          _ = try trainer.step()
          let routing = trainer.model.layers[0].layer.decision.routing
          guard trainer.progress.step > 80 else {
            continue
          }
          used += routing.groupsUsed(of: 4)
          tokens += routing.tokens
        }
        if let to { try trainer.saveCheckpoint(to) }
        let floats = Array(trainer.model.shared.all) + Array(trainer.model.experts.all)
        return (floats.map { UInt64($0.bitPattern) } + trainer.model.stageState.flatMap { $0 }, used, tokens)
      }
      let (used, tokens) = ranks.reduce((0, 0)) { ($0.0 + $1.1, $0.1 + $1.2) }
      return (ranks.map(\.0), Double(used) / Double(max(1, tokens)))
    }
    let straight = try train(until: 120)
    _ = try train(until: 60, to: folder.file("c"))
    #expect(try train(from: folder.file("c"), until: 120).state == straight.state)
    #expect(abs(straight.groups - 1.5) < 0.1)
  }

  @Test func mergingSendsFewerRows() throws {
    var merged = options {
      $0.merge = .rate(0.3)
      $0.mergeWindow = 4
    }
    merged.steps = 60
    let summary = try summary(merged)
    #expect(summary.stages.map(\.name) == ["merging"])
    #expect(abs(1 - summary.stagesLastQuarter[0].fraction - 0.3) < 0.1)
  }

  @Test func everythingTogetherFallsByTheProductAndResumesBitForBit() throws {
    let folder = try TemporaryFolder()
    var options = options {
      $0.deletionRate = 0.5
      $0.deletion = .fixed
      $0.prune = .threshold(1)
      $0.pruneProtect = 0
    }
    #expect(try summary(options).rowsSentFraction == 0.25)  // half of the tokens, one expert of two
    options.shape.stages.deletion = .gate
    options.shape.stages.prune = .auto
    options.shape.stages.merge = .rate(0.2)
    options.shape.stages.mergeWindow = 4
    options.shape.stages.granularities = [1, 2]
    options.shape.stages.granularityShift = true
    options.shape.stages.granularitySchedule = .sampled
    options.exchange.compression = .crossPolytope(.init())
    options.exchange.wire = .init(.bf16)
    let corpus = try tinyCorpus(options)
    func train(from: String? = nil, until last: Int, to: String? = nil) throws -> [[UInt64]] {
      try SimulatedCluster(ranks: 2).run { [options] fabric in
        let trainer = try Trainer(fabric: fabric, corpus: corpus, options: options)
        if let from { try trainer.resume(from) }
        while trainer.progress.step < last { _ = try trainer.step() }
        if let to { try trainer.saveCheckpoint(to) }
        let floats = Array(trainer.model.shared.all) + Array(trainer.model.experts.all)
        return floats.map { UInt64($0.bitPattern) } + trainer.model.stageState.flatMap { $0 }
      }
    }
    let straight = try train(until: 6)
    _ = try train(until: 3, to: folder.file("c"))
    #expect(try train(from: folder.file("c"), until: 6) == straight)
  }

  @Test func optionsThatMakeNoStagesAreRefusedByName() {
    let cases: [(String, (inout ModelShape) -> Void)] = [
      ("deletion-rate", { $0.stages.deletionRate = 1 }), ("deletion-rate", { $0.stages.deletionRate = -0.1 }),
      ("deletion-rate", { $0.stages.deletionRate = .nan }),
      ("deletion-hard-probability", { $0.stages.deletionHardProbability = 1.5 }),
      ("deletion-warmup", { $0.stages.deletionWarmup = -1 }),
      ("deletion-learning-rate", { $0.stages.deletionLearningRate = -1 }),
      ("deletion-least-weight", { $0.stages.deletionLeastWeight = 0.1 }),
      (
        "deletion-form",
        {
          $0.stages.deletion = .fixed
          $0.stages.deletionForm = .attention
        }
      ),
      (
        "deletion-scope",
        {
          $0.stages.deletionForm = .attention
          $0.stages.deletionScope = .layer
        }
      ),
      (
        "deletion-block",
        {
          $0.stages.deletionForm = .attention
          $0.stages.deletionBlock = 2
        }
      ),
      ("deletion-threshold", { $0.stages.evaluation.deletionThreshold = 0.5 }),
      (
        "deletion-threshold",
        {
          $0.stages.deletionRate = 0.5
          $0.stages.evaluation.deletionThreshold = 1
        }
      ),
      ("granularities", { $0.stages.granularities = [] }), ("granularities", { $0.stages.granularities = [0] }),
      ("granularities", { $0.stages.granularities = [1, 9] }), ("granularities", { $0.stages.granularities = [2, 2] }),
      ("pooling", { $0.stages.granularities = [1, 2] }), ("granularity", { $0.stages.evaluation.granularity = 2 }),
      (
        "merge-window",
        {
          $0.stages.merge = .rate(0.5)
          $0.stages.mergeWindow = 9
        }
      ),
      (
        "threshold",
        {
          $0.stages.merge = .threshold(-1)
          $0.stages.mergeWindow = 4
        }
      ),
      (
        "rate",
        {
          $0.stages.merge = .rate(1.5)
          $0.stages.mergeWindow = 4
        }
      ),
      ("threshold", { $0.stages.prune = .threshold(1.5) }), ("prune-protect", { $0.stages.pruneProtect = 2 }),
      ("prune-share", { $0.stages.pruneShare = -1 }),
      (
        "second-expert",
        {
          $0.stages.prune = .auto
          $0.stages.secondExpert = .random
        }
      ),
      ("groups", { $0.stages.routerGroups = 2 }), ("groups-per-token", { $0.stages.groupsPerToken = 1.5 }),
      (
        "groups-per-token",
        {
          $0.stages.routerGroups = 4
          $0.stages.groupsPerToken = 0.9
        }
      ),
      (
        "groups",
        {
          $0.stages.routerGroups = 2
          $0.stages.groupsPerToken = 1.5
        }
      ),
      (
        "kept",
        {
          $0.stages.routerGroups = 3
          $0.stages.routerGroupLimit = 1
        }
      ),
      (
        "topK",
        {
          $0.topK = 1
          $0.stages.prune = .auto
        }
      ), ("mask-fraction", { $0.maskFraction = 0 }),
    ]
    for (place, (argument, change)) in cases.enumerated() {
      var options = tinyOptions()
      change(&options.shape)
      let error = #expect(throws: CrosspointError.self, "case \(place), \(argument)") { try options.validate() }
      #expect(error?.code == .invalidArgument)
      #expect(error?.argument == argument)
    }
  }
}
