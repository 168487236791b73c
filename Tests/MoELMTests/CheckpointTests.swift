import Crosspoint
import CrosspointTestSupport
import Foundation
import Testing

@testable import MoELM

@Suite struct CheckpointTests {
  /// Everything that a rank holds after its steps.
  struct State: Equatable, Sendable {
    let floats: [UInt32]
    let moved: Movement
  }

  private func train(
    _ options: TrainingOptions, ranks: Int, from: String? = nil, until last: Int, to: String? = nil
  ) throws -> [State] {
    let corpus = try tinyCorpus(options)
    return try SimulatedCluster(ranks: ranks).run { fabric in
      let trainer = try Trainer(fabric: fabric, corpus: corpus, options: options)
      if let from { try trainer.resume(from) }
      while trainer.progress.step < last { _ = try trainer.step() }
      if let to { try trainer.saveCheckpoint(to) }
      let floats = Array(trainer.model.shared.all) + Array(trainer.model.experts.all)
      return State(floats: floats.map(\.bitPattern), moved: trainer.progress.moved)
    }
  }

  @Test(arguments: [1, 2, 4], [tinyOptions(), sharedOptions(1), latentOptions()])
  func sixStepsEqualThreeAndThreeResumed(ranks: Int, options: TrainingOptions) throws {
    let folder = try TemporaryFolder()
    let straight = try train(options, ranks: ranks, until: 6)
    _ = try train(options, ranks: ranks, until: 3, to: folder.file("c"))
    #expect(try train(options, ranks: ranks, from: folder.file("c"), until: 6) == straight)
    #expect(try FileManager.default.contentsOfDirectory(atPath: folder.path) == ["c"])
  }

  @Test func roundingGoesOnBitForBit() throws {
    let folder = try TemporaryFolder()
    var options = tinyOptions()
    options.exchange = ExchangeOptions(wire: .init(try .rotated(bits: 2)))
    let straight = try train(options, ranks: 2, until: 6)
    _ = try train(options, ranks: 2, until: 3, to: folder.file("c"))
    #expect(try train(options, ranks: 2, from: folder.file("c"), until: 6) == straight)
    options.exchange.seed += 1
    #expect(throws: CrosspointError.self) { try train(options, ranks: 2, from: folder.file("c"), until: 6) }
  }

  @Test func anEvaluationCodesByWhatTrainingHasRemembered() throws {
    let folder = try TemporaryFolder()
    var options = tinyOptions()
    options.exchange = ExchangeOptions(wire: .init(try .entropy(bits: 1)), memory: 2)
    let corpus = try tinyCorpus(options)
    let inTraining = try SimulatedCluster(ranks: 2).run { [options] fabric in
      let trainer = try Trainer(fabric: fabric, corpus: corpus, options: options)
      for _ in 0..<4 { _ = try trainer.step() }
      try trainer.saveCheckpoint(folder.file("c"))
      return try trainer.measure(all: true).bitsPerByte
    }[0]
    func evaluate(memory: Int) throws -> Double {
      options.exchange.memory = memory
      return try SimulatedCluster(ranks: 2).run { [options] fabric in
        let checkpoint = try Checkpoint.load(folder.file("c"), fabric: fabric)
        return try Evaluation.run(fabric: fabric, options: options, checkpoint, path: "c") { _ in corpus }
          .valBitsPerByte
      }[0]
    }
    #expect(try evaluate(memory: 2) == inTraining)
    #expect(try evaluate(memory: 0) != inTraining)
    let error = #expect(throws: CrosspointError.self) { try evaluate(memory: 4) }
    #expect(error?.code == .checkpointMismatch && error?.argument == "memory")
  }

  @Test(arguments: [1, 2, 4])
  func aMemoryGoesOnBitForBit(ranks: Int) throws {
    let folder = try TemporaryFolder()
    var options = tinyOptions()
    options.exchange = ExchangeOptions(copies: .perRank, wire: .init(try .entropy(bits: 3)), memory: 4)
    let straight = try train(options, ranks: ranks, until: 7)
    _ = try train(options, ranks: ranks, until: 3, to: folder.file("c"))
    #expect(try train(options, ranks: ranks, from: folder.file("c"), until: 7) == straight)
  }

  @Test(arguments: [ExchangeOptions.Policy.budget(bytes: 0.5), .budget(relativeError: 0.1)])
  func aPolicyGoesOnWhereItWas(policy: ExchangeOptions.Policy) throws {
    let folder = try TemporaryFolder()
    var options = tinyOptions()
    options.exchange.policy = policy
    options.shape.width = 24
    options.batch = 16
    options.steps = 18  // looks at 0, 8 and 16
    let corpus = try tinyCorpus(options)
    func train(from: String?, evaluating: Bool, until last: Int, to: String?) throws -> [[UInt32]] {
      try SimulatedCluster(ranks: 2).run { [options] fabric in
        let trainer = try Trainer(fabric: fabric, corpus: corpus, options: options)
        if let from { try trainer.resume(from) }
        while trainer.progress.step < last {
          _ = try trainer.step()
          // An evaluation leaves no trace.
          if evaluating { _ = try trainer.evaluate() }
        }
        if let to { try trainer.saveCheckpoint(to) }
        #expect(trainer.choices.keys.contains("block1.dispatchBackward"))
        return (Array(trainer.model.shared.all) + Array(trainer.model.experts.all)).map(\.bitPattern)
      }
    }
    let straight = try train(from: nil, evaluating: false, until: 18, to: nil)
    _ = try train(from: nil, evaluating: true, until: 11, to: folder.file("c"))
    #expect(try train(from: folder.file("c"), evaluating: true, until: 18, to: nil) == straight)
  }

  @Test func aCheckpointContinuesOnAnotherRankCount() throws {
    let folder = try TemporaryFolder()
    _ = try train(tinyOptions(), ranks: 4, until: 3, to: folder.file("four"))
    let two = try train(tinyOptions(), ranks: 2, from: folder.file("four"), until: 3, to: folder.file("two"))
    #expect(two.count == 2)
    #expect(
      try Data(contentsOf: URL(fileURLWithPath: folder.file("four")))
        == Data(contentsOf: URL(fileURLWithPath: folder.file("two"))))
  }

  @Test func anotherConfigurationIsRefusedByName() throws {
    let folder = try TemporaryFolder()
    _ = try train(tinyOptions(), ranks: 2, until: 1, to: folder.file("c"))
    let changes: [(String, (inout TrainingOptions) -> Void)] = [
      ("expert-width", { $0.shape.expertWidth = 11 }), ("latent", { $0.shape.latent = 5 }),
      ("learning-rate", { $0.learningRate = 1 }),
      ("seed", { $0.seed = 8 }), ("wire-dispatch", { $0.exchange.wire.dispatch = .bf16 }),
      ("steps", { $0.steps = 7 }),
    ]
    for (key, change) in changes {
      var options = tinyOptions()
      change(&options)
      let error = #expect(throws: CrosspointError.self) {
        try train(options, ranks: 2, from: folder.file("c"), until: 2)
      }
      #expect(error?.code == .checkpointMismatch)
      #expect(error?.argument == key)
    }
  }

  @Test func aCutOrChangedFileIsRefused() throws {
    let folder = try TemporaryFolder()
    let path = folder.file("c")
    _ = try train(tinyOptions(), ranks: 1, until: 1, to: path)
    let whole = [UInt8](try Data(contentsOf: URL(fileURLWithPath: path)))
    _ = try Checkpoint(whole, path: path)
    for length in [0, 7, 8, 16, 24, 100, whole.count / 2, whole.count - 4, whole.count - 1] {
      #expect(throws: CrosspointError.self, "\(length) bytes") { try Checkpoint(Array(whole[..<length]), path: path) }
    }
    for place in [0, 9, 15, 40, whole.count / 2, whole.count - 1] {
      var changed = whole
      changed[place] ^= 0x10
      #expect(throws: CrosspointError.self, "byte \(place)") { try Checkpoint(changed, path: path) }
    }
  }

  @Test func aCheckpointThatCannotBeWrittenFailsOnEveryRankAndLeavesNothing() throws {
    let options = tinyOptions()
    let corpus = try tinyCorpus(options)
    let results = SimulatedCluster(ranks: 3).results { fabric in
      try Trainer(fabric: fabric, corpus: corpus, options: options).saveCheckpoint("/nowhere/at/all")
    }
    for result in results {
      let error = #expect(throws: CrosspointError.self) { try result.get() }
      #expect(error?.code == .file)
    }
  }

  @Test(arguments: ["metrics", "checkpoint", "summary"])
  func whatRankZeroCannotWriteEveryRankThrowsAlike(option: String) throws {
    var (options, run) = (tinyOptions(), RunOptions.standard)
    options.steps = 2
    switch option {
    case "metrics": run.metrics = "/dev/full"
    case "checkpoint": run.checkpoint = "/dev/full"
    default: run.summary = "/dev/full"
    }
    let corpus = try tinyCorpus(options)
    let results = SimulatedCluster(ranks: 3).results { [options, run] fabric in
      try TrainingRun(fabric: fabric, corpus: corpus, options: options, run: run, quiet: true).train().steps
    }
    for result in results {
      let error = #expect(throws: CrosspointError.self) { try result.get() }
      #expect(error?.code == .file && error?.argument == option && error?.rank == 0)
      #expect(error?.isAgreed == true)
    }
  }

  @Test func metricsOfLaterStepsAreDroppedOnResume() throws {
    let folder = try TemporaryFolder()
    var (options, run) = (tinyOptions(), RunOptions.standard)
    options.steps = 4
    run.metrics = folder.file("m.jsonl")
    run.checkpoint = folder.file("c")
    run.checkpointEvery = 3
    run.summary = folder.file("s.json")
    let corpus = try tinyCorpus(options)
    func go(resume: Bool) throws -> [Metrics] {
      var run = run
      run.resume = resume
      _ = try SimulatedCluster(ranks: 2).run { [options, run] fabric in
        try TrainingRun(fabric: fabric, corpus: corpus, options: options, run: run, quiet: true).train()
      }
      let lines = try String(contentsOfFile: folder.file("m.jsonl"), encoding: .utf8).split(separator: "\n")
      return try lines.map { try JSONDecoder().decode(Metrics.self, from: Data($0.utf8)) }
    }
    let first = try go(resume: true)
    #expect(first.map(\.step) == [1, 2, 3, 4])
    #expect(first.map { $0.valBitsPerByte != nil } == [false, false, false, true])
    // The run is over: resuming it trains nothing and keeps its lines.
    #expect(try go(resume: true).map(\.step) == [1, 2, 3, 4])
    let summary = try JSONDecoder().decode(
      RunSummary.self, from: Data(contentsOf: URL(fileURLWithPath: folder.file("s.json"))))
    #expect(summary.valBitsPerByte == first[3].valBitsPerByte)
    #expect(!summary.interrupted)
  }
}
