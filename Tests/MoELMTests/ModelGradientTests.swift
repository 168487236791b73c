import Crosspoint
import CrosspointTestSupport
import Testing

@testable import MoELM

/// The whole model, experts on other ranks included: every tensor's gradient against differences of the global loss.
@Suite struct ModelGradientTests {
  /// What a rank found for one tensor along one direction.
  struct Slope: Sendable {
    let name: String
    let analytic: Double
    let measured: Double
    let norm: Double
  }

  @Test(arguments: [1, 2, 4]) func everyTensorsGradientIsTheSlopeOfTheLoss(ranks: Int) throws {
    try check(tinyOptions(), ranks: ranks) { _ in true }
  }

  @Test(arguments: [1, 2, 4]) func everyTensorOfANarrowExchangeHasItsGradient(ranks: Int) throws {
    try check(latentOptions(), ranks: ranks) { $0.hasPrefix("block1") || $0 == "embedding" }
  }

  @Test(arguments: [1, 2], [false, true]) func sharedExpertsHaveTheirGradient(count: Int, staged: Bool) throws {
    var options = sharedOptions(count, staged: staged)
    options.shape.topK = 3  // all experts: no choice that jumps
    try check(options, ranks: 2) { $0.hasPrefix("block1") }
  }

  @Test(arguments: [tinyOptions(), latentOptions()])
  func learnedCompensationHasItsGradient(options: TrainingOptions) throws {
    var options = options
    options.exchange.compression = .crossPolytope(.init())
    options.exchange.compensation = .lowRank(2)
    // Tensors behind the hash: moving them does not move tokens between clusters.
    try check(options, ranks: 2) { ["block1.compensation", "norm.gain", "prediction"].contains($0) }
  }

  @Test(arguments: everyGate, [0.0, 1.0])
  func deletionGatesHaveTheirGradient(
    gate: (form: StageOptions.DeletionForm, scope: StageOptions.DeletionScope), hard: Double
  ) throws {
    let form = gate.form
    let options = gatedOptions(form: form, scope: gate.scope, hard: hard)
    let gate = form == .experts ? ["block1.stages"] : hard == 0 ? ["keygate"] : []  // a hard choice of keys jumps
    let names = gate + ["embedding", "block1.gate", "block1.expert0.up", "block1.expert2.down", "prediction"]
    try check(options, ranks: 2, weight: 0.05) { names.contains($0) }
  }

  @Test(arguments: [1, 4]) func everyGranularityHasItsGradient(ranks: Int) throws {
    for separateRouters in [false, true] {
      var options = pooledOptions(separateRouters: separateRouters)
      options.shape.topK = 3  // all experts: no choice that jumps
      try check(options, ranks: ranks) {
        $0.hasPrefix("block1.gate") || ["embedding", "block1.expert1.down"].contains($0)
      }
    }
  }

  @Test func prunedExpertsAndMergedTokensHaveTheirGradient() throws {
    var options = tinyOptions()
    options.shape.stages.prune = .threshold(0.7)
    options.shape.stages.merge = .threshold(0.5)
    options.shape.stages.mergeWindow = 4
    // Tensors behind the choices: moving them changes none.
    let names = ["block1.expert0.up", "block1.expert1.down", "norm.gain", "prediction"]
    try check(options, ranks: 2) { names.contains($0) }
  }

  /// - Parameter weight: α of every regulariser, which a controller would start at nothing.
  private func check(
    _ options: TrainingOptions, ranks: Int, weight: Double = 0, _ includes: @escaping @Sendable (String) -> Bool
  ) throws {
    let corpus = try tinyCorpus(options)
    let slopes = try SimulatedCluster(ranks: ranks).run { fabric in
      try Self.slopes(fabric, corpus, options, weight, includes)
    }
    #expect(slopes[0].count >= 6)
    for slope in slopes[0] {
      #expect(abs(slope.analytic - slope.measured) < 2e-3 * slope.norm + 1e-6, "\(slope)")
    }
  }

  /// The state of stages with another α, the last number of each that has one.
  private static func pulling(_ state: [[UInt64]], _ weight: Double) -> [[UInt64]] {
    state.enumerated().map { place, numbers in
      numbers.count < (place == 0 ? 3 : 6) ? numbers : numbers.dropLast() + [weight.bitPattern]
    }
  }

  private static func slopes(
    _ fabric: any Fabric, _ corpus: Corpus, _ options: TrainingOptions, _ weight: Double,
    _ includes: (String) -> Bool
  ) throws -> [Slope] {
    let trainer = try Trainer(fabric: fabric, corpus: corpus, options: options)
    try trainer.model.restoreStages(Self.pulling(trainer.model.stageState, weight))
    trainer.readBatch()
    _ = try trainer.propagate()
    try fabric.allreduce(trainer.model.shared.gradients, operation: "gradients")
    func globalLoss() throws -> Double {
      var losses = Losses()
      try trainer.forEachPass { pass throws(CrosspointError) in
        losses += try trainer.model.forward(trainer.batch, pass) * pass.weight
        trainer.model.forget()
      }
      let predictions = options.batch * options.shape.predictionsPerSequence
      let (surprise, others) = try fabric.sum(
        losses.surprise / Double(predictions), losses.loadBalance + losses.stages, operation: "loss")
      return surprise + others
    }

    let shared = trainer.model.shared.specifications.map(\.name)
    let experts = try LanguageModel.expertSpecifications(options.shape, rank: 0, of: 1).map(\.name)
    var slopes: [Slope] = []
    for name in (shared + experts) where includes(name) {
      let set = shared.contains(name) ? trainer.model.shared : trainer.model.experts
      let mine = set.ranges[name] == nil ? nil : set[name]
      // The owner speaks for its expert's tensor, rank 0 for those that all hold.
      let speaks = mine != nil && (fabric.rank == 0 || !shared.contains(name))
      for direction in ["along the gradient", "in a random direction"] {
        let count = mine?.value.count ?? 0
        let gradient = (mine?.gradient.floats).map { $0.map(Double.init) } ?? []
        var along = direction == "along the gradient" ? gradient : randomFloats(count, seed: 11).map(Double.init)
        let length = along.reduce(0) { $0 + $1 * $1 }.squareRoot()
        along = along.map { $0 / max(length, 1e-30) }
        let values = (mine?.value.floats).map(Array.init) ?? []
        func loss(at step: Double) throws -> Double {
          for i in 0..<count { mine!.value.base[i] = values[i] + Float(step * along[i]) }
          defer { for i in 0..<count { mine!.value.base[i] = values[i] } }
          return try globalLoss()
        }
        let step = 1e-2
        let measured = (try loss(at: step) - loss(at: -step)) / (2 * step)
        let dot = zip(gradient, along).reduce(0) { $0 + $1.0 * $1.1 }
        let squared = gradient.reduce(0) { $0 + $1 * $1 }
        let (analytic, squaredNorm) = try fabric.sum(speaks ? dot : 0, speaks ? squared : 0, operation: "slope")
        slopes.append(
          Slope(name: "\(name) \(direction)", analytic: analytic, measured: measured, norm: squaredNorm.squareRoot()))
      }
    }
    return slopes
  }
}
