import CrosspointCore
import CrosspointFabric
import CrosspointRouting
import CrosspointStages
import CrosspointTestSupport
import CrosspointTokens
import Testing

private func sum(_ fabric: any Fabric) -> CountReduction {
  { counts throws(CrosspointError) in
    try counts.withUnsafeMutableBufferPointer { values throws(CrosspointError) in
      try fabric.allreduce(values, operation: "stages")
    }
  }
}

/// A gate that plain gradient descent moves by its regulariser alone, against a pull towards keeping rows.
private func train(
  _ fabric: any Fabric, from state: (parameters: [Float], state: [UInt64])? = nil, steps: Range<Int>, target: Double
) throws -> (rates: [Double], weights: [UInt64], parameters: [Float], state: [UInt64]) {
  let hidden = 8
  let gate = try DeletionGate(
    hidden: hidden,
    options: DeletionOptions(
      rule: .learned(.init(regulariser: .controlled(target: target, integral: 1e-3), hardProbability: 0.5)), seed: 3))
  let pipeline = try TokenPipeline([gate], causal: true)
  if let state {
    pipeline.parameters = state.parameters
    try pipeline.restore(state.state)
  }
  let reduce = sum(fabric)
  var (rates, weights) = ([Double](), [UInt64]())
  for step in steps {
    // Ranks see unequal batches of a changing stream; the last rank often sees none.
    let rows = fabric.rank == fabric.rankCount - 1 && fabric.rankCount > 1 && step % 3 == 0 ? 0 : 40 + 20 * fabric.rank
    let x = try randomBatch(rows: rows, hidden: hidden, seed: UInt64(step * 16 + fabric.rank))
    let layout = RowLayout(sequences: 1, length: rows)
    let result = try pipeline.reduce(
      x, layout, StageContext(step: step, isTraining: true, batch: fabric.rank), reduceCounts: reduce)
    _ = try pipeline.expand(TokenBatch(result.tokens.array, hidden: hidden))
    // The experts help in proportion to the first component: dy = −x₀ x / |x|², per row.
    let dy = try TokenBatch(rows: rows, hidden: hidden)
    for row in 0..<rows {
      let square = x.row(row).reduce(0) { $0 + $1 * $1 }
      for d in 0..<hidden { dy.row(row)[d] = -(0.3 + max(0, x.row(row)[0])) * x.row(row)[d] / square / 100 }
    }
    let dRows = try pipeline.expandBackward(dy)
    _ = try pipeline.reduceBackward(dRows, tokens: x)
    var gradients = pipeline.gradients.map(Double.init)
    try reduce(&gradients)
    let before = pipeline.parameters
    pipeline.parameters = zip(before, gradients).map { $0 - 0.05 * Float($1) }
    pipeline.resetGradients()
    try pipeline.step(reduceCounts: reduce)
    weights.append(gate.regulariserWeight.bitPattern)
    pipeline.statistics[0].reset()
    var counts = [Double(try gate.reduce(x, layout, evaluation).tokens.rows), Double(rows)]
    try reduce(&counts)
    rates.append(1 - counts[0] / counts[1])
  }
  return (rates, weights, pipeline.parameters, pipeline.state)
}

@Suite("Rate controller")
struct RateControllerTests {
  @Test func followsThePapersEquations() throws {
    let gate = try DeletionGate(
      hidden: 1,
      options: DeletionOptions(rule: .learned(.init(regulariser: .controlled(target: 0.6, integral: 0.01)))))
    gate.parameters = [1, 1, 0]
    var (p, i) = (0.0, 0.0)
    for (rows, deleted) in [(10, 0), (8, 8), (5, 1), (4, 3)] {
      let x = try TokenBatch((0..<rows).map { $0 < deleted ? -1 : 1 }, hidden: 1)
      _ = try gate.reduce(x, RowLayout(sequences: 1, length: rows), training)
      _ = try gate.reduce(x, RowLayout(sequences: 1, length: rows), evaluation)  // counts for nothing
      try gate.step { _ in }
      let error = 0.6 - Double(deleted) / Double(rows)
      p = 0.9 * p + 0.1 * 0.5 * error
      i += 0.01 * error
      #expect(gate.regulariserWeight == max(0, p + i))
    }
  }

  @Test(arguments: [1, 3], [0.3, 0.5, 0.7])
  func reachesTheTargetAndStaysThereWithOneAlphaOnAllRanks(ranks: Int, target: Double) throws {
    let results = try SimulatedCluster(ranks: ranks).run { fabric in
      let run = try train(fabric, steps: 0..<400, target: target)
      return (run.rates, run.weights, run.parameters)
    }
    let mean = results[0].0[250...].reduce(0, +) / 150
    #expect(abs(mean - target) < 0.02, "\(mean)")
    for rank in results.indices {
      #expect(results[rank].1 == results[0].1)
      #expect(firstBitDifference(results[rank].2, results[0].2) == nil)
    }
    #expect(Set(results[0].1).count > 100, "α must move")
  }

  @Test func aRestoredStateContinuesBitForBit() throws {
    try SimulatedCluster(ranks: 2).run { fabric in
      let whole = try train(fabric, steps: 0..<60, target: 0.4)
      let half = try train(fabric, steps: 0..<30, target: 0.4)
      let rest = try train(fabric, from: (half.parameters, half.state), steps: 30..<60, target: 0.4)
      #expect(Array(whole.weights[30...]) == rest.weights)
      #expect(firstBitDifference(whole.parameters, rest.parameters) == nil)
      #expect(whole.state == rest.state)
    }
  }
}
