import CrosspointCore
import CrosspointExchange
import CrosspointFabric
import CrosspointRouting
import CrosspointStages
import CrosspointTestSupport
import CrosspointTokens
import Testing

@testable import Snippets

/// One MoE layer of one rank with everything in front of its exchange, and the loss of all ranks.
private final class Layer {
  static let hidden = 6
  let fabric: any Fabric
  let pipeline: TokenPipeline
  let exchange: ExpertExchange
  var gate: LinearRouter
  let layout: RowLayout
  let dy: [Float]
  let context: StageContext

  init(_ fabric: any Fabric, isCausal: Bool) throws {
    self.fabric = fabric
    let deletion = try DeletionGate(
      hidden: Self.hidden,
      options: DeletionOptions(rule: .learned(.init(regulariser: .constant(0.3), hardProbability: 1)), seed: 4))
    deletion.parameters = zip(deletion.parameters, randomFloats(13, seed: 6)).map { $0 + 0.2 * $1 }
    deletion.parameters[12] = 0.5
    let merging = try TokenMerging(.init(threshold: .given(0.3), window: 4, isCausal: isCausal))
    let pooling = try WindowPooling(.fixed(2), isShifted: isCausal)
    let stages: [any TokenStage] =
      isCausal
      ? [QuietRows(floor: 1.2), deletion, merging, pooling] : [pooling, merging, deletion, QuietRows(floor: 1.1)]
    pipeline = try TokenPipeline(stages, causal: isCausal)
    exchange = try ExpertExchange(
      fabric: fabric, layout: ExpertLayout(experts: 6, hidden: Self.hidden))
    gate = try LinearRouter(
      hidden: Self.hidden,
      router: TopKRouter(
        experts: 6, topK: 2, scoring: .softmaxThenTopK(renormalised: true), loadBalance: 0.5, zLoss: 0.1
      ).limited(toGroups: 2, of: 3).trimmed(by: .pruning(threshold: 0.7, protecting: 0.2)),
      seed: 9)
    // The last of several ranks has no tokens at all.
    let isEmpty = fabric.rankCount > 1 && fabric.rank == fabric.rankCount - 1
    layout =
      isEmpty
      ? RowLayout(sequences: 0, length: 0)
      : try RowLayout(tokensPerSequence: [6, 5], isPadding: (0..<11).map { $0 == 5 })
    dy = randomFloats(layout.rows * Self.hidden, seed: UInt64(fabric.rank + 50))
    context = StageContext(step: 2, isTraining: true, batch: fabric.rank)
  }

  func sum(_ counts: inout [Double]) throws(CrosspointError) {
    try counts.withUnsafeMutableBufferPointer { values throws(CrosspointError) in
      try fabric.allreduce(values, operation: "test")
    }
  }

  struct Outcome {
    var loss = 0.0
    var dx: [Float] = []
    var sent: [Int32] = []
    var layout = RowLayout(sequences: 0, length: 0)
  }

  /// Collective. The rank's auxiliary losses count by its share of the tokens.
  func run(_ x: [Float], backward: Bool = false) throws -> Outcome {
    let tokens = try TokenBatch(x, hidden: Self.hidden)
    let share: Float = 1 / Float(fabric.rankCount)
    let rows = try pipeline.reduce(tokens, layout, context, reduceCounts: sum)
    let decision = try gate.route(
      rows.tokens, traits: RowTraits(tokensPerRow: rows.layout.tokensPerRow), reduceCounts: sum)
    let handle = try exchange.dispatch(rows.tokens, decision.routing)
    let experts = ToyExperts()
    let first = exchange.localExperts.lowerBound
    let outputs = try experts.forward(handle.rows, rowsPerExpert: handle.rowsPerExpert, firstExpert: first)
    var y = try pipeline.expand(exchange.combine(outputs, handle))
    try y.add(tokens)
    var result = Outcome(sent: decision.routing.topkIndices, layout: rows.layout)
    var loss = zip(y.elements, dy).reduce(0.0) { $0 + Double($1.0) * Double($1.1) }
    loss += Double(share) * (pipeline.auxiliaryLoss + decision.losses.total)
    var total = [loss]
    try sum(&total)
    result.loss = total[0]
    guard backward else { return result }

    let dyBatch = try TokenBatch(dy, hidden: Self.hidden)
    let dCombined = try pipeline.expandBackward(dyBatch)
    let dOutputs = try exchange.combineBackward(dCombined, handle)
    let dExpertRows = try experts.backward(
      handle.rows, dOutputs, rowsPerExpert: handle.rowsPerExpert, firstExpert: first)
    var dRows = try exchange.dispatchBackward(dExpertRows, handle)
    try gate.backward(
      decision, topkWeightGradients: handle.topkWeightGradients, tokens: rows.tokens, into: &dRows,
      auxiliaryScale: share)
    var dx = try pipeline.reduceBackward(dRows, tokens: tokens, auxiliaryScale: share)
    try dx.add(dyBatch)
    result.dx = dx.array
    return result
  }
}

@Suite("The longest pipeline")
struct LongestPipelineTests {
  @Test(arguments: [1, 4], [true, false])
  func gradientsMatchCentralDifferencesAcrossRanks(ranks: Int, isCausal: Bool) throws {
    let fractions = try SimulatedCluster(ranks: ranks).run { fabric in
      let layer = try Layer(fabric, isCausal: isCausal)
      let x = randomFloats(layer.layout.rows * Layer.hidden, seed: UInt64(fabric.rank + 190))
      let exact = try layer.run(x, backward: true)
      let fractions = layer.pipeline.statistics.map(\.fraction)
      var shared = (layer.pipeline.gradients + layer.gate.weightGradients).map(Double.init)
      try layer.sum(&shared)

      func difference(_ change: (Float) -> [Float]) throws -> Double {
        var values: [Double] = []
        for step: Float in [1e-3, -1e-3] {
          let moved = try layer.run(change(step))
          #expect(moved.sent == exact.sent && moved.layout == exact.layout, "the case must not sit on an edge")
          values.append(moved.loss)
        }
        return (values[0] - values[1]) / 2e-3
      }
      // Shared parameters move on all ranks at once.
      var numeric: [Double] = []
      let parameters = layer.pipeline.parameters
      for i in parameters.indices {
        numeric.append(
          try difference { step in
            layer.pipeline.parameters[i] = parameters[i] + step
            return x
          })
        layer.pipeline.parameters = parameters
      }
      let weight = layer.gate.weight
      for i in weight.indices {
        numeric.append(
          try difference { step in
            layer.gate.weight[i] = weight[i] + step
            return x
          })
        layer.gate.weight = weight
      }
      #expect(relativeError(shared.map(Float.init), numeric.map(Float.init)) < 2e-3)
      // Tokens move one rank at a time.
      for owner in 0..<fabric.rankCount {
        let isEmpty = fabric.rankCount > 1 && owner == fabric.rankCount - 1
        var slopes: [Double] = []
        for i in 0..<(isEmpty ? 0 : 11 * Layer.hidden) {
          slopes.append(
            try difference { step in
              var moved = x
              if owner == fabric.rank { moved[i] += step }
              return moved
            })
        }
        if owner == fabric.rank { #expect(relativeError(exact.dx, slopes.map(Float.init)) < 2e-3) }
      }
      return fractions
    }
    // On some rank every stage must have left something out.
    for stage in 0..<4 { #expect(fractions.contains { $0[stage] < 1 }, "stage \(stage)") }
  }

  /// Everything deleted on one rank, on all of them.
  @Test(arguments: [[1], [0, 1, 2]])
  func ranksThatLoseEverythingTakePart(losers: [Int]) throws {
    try SimulatedCluster(ranks: 3).run { fabric in
      let layer = try Layer(fabric, isCausal: true)
      var x = randomFloats(layer.layout.rows * Layer.hidden, seed: UInt64(fabric.rank + 190))
      if losers.contains(fabric.rank) { x = x.map { 0.01 * $0 } }  // quiet rows stay home
      let outcome = try layer.run(x, backward: true)
      if losers.contains(fabric.rank) {
        #expect(outcome.sent.isEmpty && firstBitDifference(outcome.dx, layer.dy) == nil)
      } else if fabric.rank == 0 {
        #expect(!outcome.sent.isEmpty)
      }
      #expect(outcome.loss.isFinite && outcome.dx.allSatisfy(\.isFinite))
      #expect(layer.pipeline.gradients.allSatisfy(\.isFinite) && layer.gate.weightGradients.allSatisfy(\.isFinite))
    }
  }
}
