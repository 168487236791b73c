import ArgumentParser
import MoELM

extension Objective: ExpressibleByArgument {}

/// The sizes of the model.
struct ModelArguments: ParsableArguments {
  @Option(help: "Bytes that the model looks back over.")
  var context = 128

  @Option(help: "Floats per token.")
  var width = 128

  @Option(help: "Blocks; every second one has experts.")
  var blocks = 4

  @Option(help: "Attention heads.")
  var heads = 4

  @Option(help: "Experts of each MoE layer, over all ranks.")
  var experts = 8

  @Option(help: "Hidden floats of an expert and of a dense feed-forward.")
  var expertWidth = 512

  @Option(help: "Experts per token.")
  var topK = 2

  @Option(help: "Experts that every token passes beside its routed ones; their tokens never travel.")
  var sharedExperts = 0

  @Option(help: "Coefficient of the load-balance loss.")
  var loadBalance: Float = 0.01

  @Option(help: "causal predicts each next byte; masked predicts hidden bytes and looks both ways.")
  var objective = Objective.causal

  @Option(help: "Share of the bytes that the masked objective hides.")
  var maskFraction: Float = 0.15

  @Flag(help: "Attention may look at nothing: e^s / (1 + sum e^s).")
  var softmax1 = false

  var shape: ModelShape {
    var shape = ModelShape()
    shape.context = context
    shape.width = width
    shape.blocks = blocks
    shape.heads = heads
    shape.experts = experts
    shape.expertWidth = expertWidth
    shape.topK = topK
    shape.sharedExperts = sharedExperts
    shape.loadBalance = loadBalance
    shape.objective = objective
    shape.maskFraction = maskFraction
    shape.softmax1 = softmax1
    return shape
  }
}
