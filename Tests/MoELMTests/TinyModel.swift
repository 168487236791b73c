import Crosspoint
import CrosspointTestSupport
import Foundation

@testable import MoELM

/// A model small enough for central differences and debug builds.
func tinyOptions(seed: UInt64 = 1) -> TrainingOptions {
  var options = TrainingOptions()
  options.shape.context = 8
  options.shape.width = 12
  options.shape.blocks = 2
  options.shape.heads = 2
  options.shape.experts = 3
  options.shape.expertWidth = 10
  options.batch = 4
  options.steps = 6
  options.warmup = 2
  options.learningRate = 1e-2
  options.evalWindows = 3
  options.shape.loadBalance = 0.5  // large enough to show in gradients
  options.seed = seed
  return options
}

/// The same with rows of five floats between ranks.
func latentOptions() -> TrainingOptions {
  var options = tinyOptions()
  options.shape.latent = 5
  return options
}

/// Words drawn from a small vocabulary, so that there is something to learn.
func tinyText(_ length: Int = 2000) -> [UInt8] {
  var generator = SplitMix64(seed: 7)
  let words = ["light ", "darkness ", "and ", "the ", "waters ", "was ", "upon "]
  var text = ""
  while text.utf8.count < length { text += words[Int(generator.next() % 7)] }
  return Array(text.utf8.prefix(length))
}

func tinyCorpus(_ options: TrainingOptions) throws -> Corpus {
  try Corpus(tinyText(), context: options.shape.context, batch: options.batch)
}

/// Training losses of every step and the held-out loss, as rank 0 sees them.
func lossCurve(_ options: TrainingOptions, _ cluster: SimulatedCluster) throws -> [Double] {
  let corpus = try tinyCorpus(options)
  return try cluster.run { fabric in
    let trainer = try Trainer(fabric: fabric, corpus: corpus, options: options)
    var losses: [Double] = []
    while trainer.progress.step < options.steps { losses.append(try trainer.step().bitsPerByte) }
    return losses + [try trainer.evaluate()]
  }[0]
}
