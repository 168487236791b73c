import Crosspoint
import CrosspointTestSupport
import Testing

@testable import MoELM

@Suite struct TrainingTests {
  @Test func anyRankCountFollowsTheSameCurve() throws {
    let options = tinyOptions()
    let one = try lossCurve(options, SimulatedCluster(ranks: 1))
    #expect(one[5] < one[0] - 0.5, "it learns")
    for ranks in [2, 3, 4, 5] {  // 3: unequal sequences; 4: a rank without experts; 5: without sequences, too
      #expect(relativeError(try lossCurve(options, SimulatedCluster(ranks: ranks)), one) < 1e-5, "\(ranks) ranks")
    }
  }

  @Test func aRunRepeatsBitForBit() throws {
    let cluster = SimulatedCluster(ranks: 2)
    #expect(try lossCurve(tinyOptions(), cluster) == lossCurve(tinyOptions(), cluster))
    #expect(try lossCurve(tinyOptions(), cluster) != lossCurve(tinyOptions(seed: 2), cluster))
  }

  @Test func compressionSendsFewerRowsAndStillLearns() throws {
    var options = tinyOptions()
    options.exchange.compression = .crossPolytope(.init())
    options.exchange.compensation = .lowRank(2)
    options.exchange.wire = .init(.bf16)
    let corpus = try tinyCorpus(options)
    let summary = try SimulatedCluster(ranks: 2).run { [options] fabric in
      try TrainingRun(fabric: fabric, corpus: corpus, options: options, run: RunOptions.standard, quiet: true).train()
    }[0]
    #expect(summary.steps == 6)
    #expect(summary.valBitsPerByte < 7.8, "untrained it is 8")
    #expect(summary.rowsSentFraction < 1)
    #expect(summary.wireFraction < 0.9)
    #expect(summary.rowsSentFractionLastQuarter > 0 && summary.rowsSentFractionLastQuarter < 1)
  }

  private func summary(_ options: TrainingOptions, ranks: Int) throws -> RunSummary {
    let corpus = try tinyCorpus(options)
    return try SimulatedCluster(ranks: ranks).run { fabric in
      try TrainingRun(fabric: fabric, corpus: corpus, options: options, run: RunOptions.standard, quiet: true).train()
    }[0]
  }

  @Test(arguments: ExpertTransportKind.allCases) func everyPhaseHasItsSeconds(transport: ExpertTransportKind) throws {
    var options = tinyOptions()
    options.transport = transport
    options.shape.sharedExperts = 1
    let summary = try summary(options, ranks: 2)
    let phases = summary.phaseSeconds
    #expect(phases.values.allSatisfy { $0 > 0 })
    let transfers = phases.filter { $0.key.split(separator: ".").count == 3 }
    for kind in TransferKind.allCases {
      #expect(transfers.keys.contains { $0.hasPrefix("block1.\(kind).") }, "\(phases)")
    }
    #expect(transfers.keys.contains(transport == .plain ? "block1.combine.move" : "block1.combine.wait"), "\(phases)")
    for name in ["block0.attention", "block0.dense", "block1.dense", "block1.experts", "block1.router", "optimiser"] {
      #expect(phases[name] != nil, "\(name)")
    }
    let share = transfers.values.reduce(0, +) / phases.values.reduce(0, +)
    #expect((summary.alltoallShare - share).magnitude < 1e-9)
  }

  @Test func noMomentOfAStepIsCountedTwice() throws {
    let summary = try summary(tinyOptions(), ranks: 1)
    #expect(summary.phaseSeconds.values.reduce(0, +) <= summary.stepSeconds)
  }

  @Test func oneRankAskedToStopStopsAll() throws {
    let options = tinyOptions()
    let corpus = try tinyCorpus(options)
    let stops = try SimulatedCluster(ranks: 3).run { fabric in
      let trainer = try Trainer(fabric: fabric, corpus: corpus, options: options)
      return [try trainer.step().shouldStop, try trainer.step(stopRequested: fabric.rank == 1).shouldStop]
    }
    #expect(stops == [[false, true], [false, true], [false, true]])
  }

  @Test func sequencesDependOnSeedStepAndNumberAlone() throws {
    let corpus = try tinyCorpus(tinyOptions())
    func sequence(_ number: Int, _ step: Int, _ seed: UInt64) -> [UInt8] {
      var (inputs, targets) = ([UInt8](repeating: 0, count: 8), [UInt8](repeating: 0, count: 8))
      corpus.copySequence(number, step: step, seed: seed, inputs: &inputs, targets: &targets)
      #expect(inputs[1...] == targets[..<7])
      return inputs
    }
    #expect(sequence(1, 2, 3) == sequence(1, 2, 3))
    let others = Set([sequence(0, 2, 3), sequence(1, 3, 3), sequence(1, 2, 4), sequence(1, 2, 3)])
    #expect(others.count == 4)
  }
}
