import Crosspoint

/// What the held-out text showed.
package struct HeldOut: Sendable {
  /// Mean over the predicted bytes, at the granularity that the evaluation is about.
  package var bitsPerByte: Double
  /// At every granularity that was measured.
  package var granularities: [GranularityLoss]
  /// What every stage let through, summed over ranks, at the granularity that the evaluation is about.
  package var stages: [StageCount]
  /// What travelled for it, summed over ranks.
  package var traffic: Traffic
  /// How alike the granularities choose.
  package var overlaps: [Overlap]
}

/// The held-out loss at one granularity.
package struct GranularityLoss: Codable, Sendable, Equatable {
  package var granularity: Int
  package var valBitsPerByte: Double
}

extension Trainer {
  /// Mean bits per predicted byte over the held-out windows, the same windows and masks every time. Collective.
  package func evaluate() throws(CrosspointError) -> Double { try measure(all: false).bitsPerByte }

  /// The same with what the stages did. Collective.
  /// - Parameter all: whether to measure every granularity, not only the one that the evaluation is about.
  package func measure(all: Bool) throws(CrosspointError) -> HeldOut {
    let stages = options.shape.stages
    let main = stages.evaluation.granularity ?? stages.granularities[0]
    let granularities = all ? stages.granularities : [main]
    let available = corpus.heldOutWindows
    let windows = options.evalWindows == 0 ? available : min(options.evalWindows, available)
    var nats = [Double](repeating: 0, count: granularities.count)
    var moved = [Movement](repeating: Movement(), count: granularities.count)
    for exchange in exchanges { exchange.adapts = false }
    defer { for exchange in exchanges { exchange.adapts = true } }
    for start in stride(from: 0, to: windows, by: options.batch) {
      StopSignal.check()
      readHeldOut(start, count: min(options.batch, windows - start), of: windows)
      for (place, granularity) in granularities.enumerated() {
        let pass = pass(isTraining: false, granularity: granularity, isFirst: place == 0)
        nats[place] += try model.forward(batch, pass).surprise
        try model.settle()
        model.forget()
        collectMovement()
        moved[place] = moved[place] + self.moved
      }
    }
    var sums = nats + moved.flatMap(\.values)
    try fabric.sum(&sums, operation: "evaluate")
    var rest = sums.dropFirst(granularities.count)
    for place in moved.indices {
      moved[place] = moved[place].with(rest)
      rest = rest.dropFirst(moved[place].values.count)
    }
    let predictions = Double(windows * options.shape.predictionsPerSequence)
    let losses = zip(granularities, sums).map {
      GranularityLoss(granularity: $0, valBitsPerByte: $1 / predictions * bitsPerNat)
    }
    let place = granularities.firstIndex(of: main) ?? 0
    return HeldOut(
      bitsPerByte: losses[place].valBitsPerByte, granularities: losses, stages: moved[place].stages,
      traffic: moved[place].traffic, overlaps: moved.flatMap { moved in moved.overlaps.filter { $0.tokens > 0 } })
  }
}
