import Crosspoint
import CrosspointTestSupport
import Foundation
import Testing

@testable import MoELM

/// Each a typed error with one line that names the argument.
@Suite struct BadInputTests {
  private func refused(_ argument: String, _ change: (inout TrainingOptions) -> Void) {
    var options = tinyOptions()
    change(&options)
    let error = #expect(throws: CrosspointError.self) { try options.validate() }
    #expect(error?.code == .invalidArgument)
    #expect(error?.argument == argument)
    #expect(error.map { !"\($0)".contains("\n") } == true)
  }

  @Test func optionsThatMakeNoModelAreRefused() {
    refused("experts") { $0.shape.experts = 0 }
    refused("top-k") { $0.shape.topK = 4 }
    refused("top-k") { $0.shape.topK = 0 }
    refused("width") { $0.shape.width = -1 }
    refused("heads") { $0.shape.heads = 5 }
    refused("heads") { $0.shape.heads = 12 }
    for latent in [0, -1, 13, Int.min] { refused("latent") { $0.shape.latent = latent } }
    refused("context") { $0.shape.context = 0 }
    refused("blocks") { $0.shape.blocks = 1 << 40 }
    refused("batch") { $0.batch = 0 }
    refused("steps") { $0.steps = 0 }
    refused("learning-rate") { $0.learningRate = .nan }
    refused("clip") { $0.clip = 0 }
    refused("weight-decay") { $0.weightDecay = -1 }
    refused("load-balance") { $0.shape.loadBalance = -1 }
  }

  @Test func textsThatMakeNoBatchAreRefused() {
    for (bytes, batch, argument) in [([], 1, "data"), ([UInt8](repeating: 1, count: 100), 12, "batch")] {
      let error = #expect(throws: CrosspointError.self) { try Corpus(bytes, context: 8, batch: batch) }
      #expect(error?.argument == argument)
    }
    #expect(throws: Never.self) { try Corpus([UInt8](repeating: 1, count: 100), context: 8, batch: 11) }
  }

  @Test func anUnreadableTextFailsOnEveryRank() throws {
    let folder = try TemporaryFolder()
    #expect(FileManager.default.createFile(atPath: folder.file("empty"), contents: Data()))
    for (path, code) in [
      (folder.file("none"), CrosspointError.Code.file), (folder.path, .file), (folder.file("empty"), .invalidArgument),
    ] {
      let results = SimulatedCluster(ranks: 3).results { fabric in
        try Corpus.load(path: path, context: 8, batch: 4, fabric: fabric)
      }
      for result in results {
        let error = #expect(throws: CrosspointError.self) { try result.get() }
        #expect(error?.code == code)
        #expect(error?.argument == "data")
      }
    }
  }

  @Test func filesWithoutACheckpointPathAreRefused() {
    var run = RunOptions.standard
    run.resume = true
    #expect(throws: CrosspointError.self) { try run.check() }
    run.resume = false
    run.checkpointEvery = 5
    #expect(throws: CrosspointError.self) { try run.check() }
    run.checkpointEvery = -1
    #expect(throws: CrosspointError.self) { try run.check() }
  }

  @Test func aLossThatIsNoNumberEndsTrainingOnEveryRank() throws {
    var options = tinyOptions()
    options.learningRate = 1e30
    options.warmup = 0
    options.exchange.nonFinite = .propagate
    let corpus = try tinyCorpus(options)
    let results = SimulatedCluster(ranks: 2).results { [options] fabric in
      let trainer = try Trainer(fabric: fabric, corpus: corpus, options: options)
      while trainer.progress.step < options.steps { _ = try trainer.step() }
    }
    for result in results {
      let error = #expect(throws: CrosspointError.self) { try result.get() }
      #expect(error?.code == .nonFinite || error?.code == .rankLost || error?.code == .invalidArgument)
    }
  }
}
