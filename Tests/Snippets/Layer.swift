// snippet: layer
import Crosspoint

/// This rank's experts: each a square matrix, E(x) = W x.
struct LinearExperts {
  let hidden: Int
  var weight: [Float]
  var gradient: [Float]

  init(count: Int, hidden: Int, seed: UInt64) {
    var generator = SplitMix64(seed: seed)
    self.hidden = hidden
    weight = (0..<count * hidden * hidden).map { _ in (generator.nextUnit() - 0.5) * 0.5 }
    gradient = [Float](repeating: 0, count: weight.count)
  }

  /// Rows come grouped by expert: `rowsPerExpert[0]` rows for the first, and so on.
  private func forEachRow(_ rowsPerExpert: [Int], _ body: (_ row: Int, _ matrix: Int) -> Void) {
    var row = 0
    for (expert, count) in rowsPerExpert.enumerated() {
      for _ in 0..<count {
        body(row, expert * hidden * hidden)
        row += 1
      }
    }
  }

  /// Writes the outputs to the handle's memory.
  func forward(_ handle: DispatchHandle) throws(CrosspointError) {
    let output = try handle.outputs()
    forEachRow(handle.rowsPerExpert) { row, matrix in
      let (x, o) = (handle.rows.row(row), output.row(row))
      o.update(repeating: 0)
      for i in 0..<hidden {
        for j in 0..<hidden { o[i] += weight[matrix + i * hidden + j] * x[j] }
      }
    }
  }

  /// Adds to `gradient` and writes ∂L/∂rows to the handle's memory.
  mutating func backward(
    _ handle: DispatchHandle, _ dOutput: borrowing TokenBatch
  ) throws(CrosspointError) {
    let dRows = try handle.rowGradients()
    var gradient = gradient
    forEachRow(handle.rowsPerExpert) { row, matrix in
      let (x, d, dx) = (handle.rows.row(row), dOutput.row(row), dRows.row(row))
      dx.update(repeating: 0)
      for i in 0..<hidden {
        for j in 0..<hidden {
          gradient[matrix + i * hidden + j] += d[i] * x[j]
          dx[j] += weight[matrix + i * hidden + j] * d[i]
        }
      }
    }
    self.gradient = gradient
  }

  mutating func step(rate: Float) {
    for i in weight.indices { weight[i] -= rate * gradient[i] }
    gradient = [Float](repeating: 0, count: weight.count)
  }
}

/// Trains one MoE layer to negate its input; returns the loss of each step.
func train(_ fabric: any Fabric) throws -> [Float] {
  let (tokenCount, hidden, expertCount) = (64, 16, 6)
  let exchange = try ExpertExchange(
    fabric: fabric, layout: ExpertLayout(experts: expertCount, hidden: hidden),
    options: ExchangeOptions(
      compression: .crossPolytope(), compensation: .identity, wire: .init(.bf16)))
  var gate = try LinearRouter(
    hidden: hidden,
    router: TopKRouter(experts: expertCount, topK: 2, scoring: .topKThenSoftmax), seed: 1)
  var experts = LinearExperts(
    count: exchange.localExperts.count, hidden: hidden, seed: 2 + UInt64(fabric.rank))
  var generator = SplitMix64(seed: 100 + UInt64(fabric.rank))
  let values = (0..<tokenCount * hidden).map { _ in generator.nextUnit() - 0.5 }
  let tokens = try TokenBatch(values, hidden: hidden)
  let tokensOfAllRanks = Float(tokenCount * fabric.rankCount)

  var losses: [Float] = []
  for _ in 0..<100 {
    // Forward.
    let decision = try gate.route(tokens)
    let handle = try exchange.dispatch(tokens, decision.routing)
    try experts.forward(handle)
    let y = try exchange.combine(handle)

    // L = mean over all tokens of ½ |y + x|², and ∂L/∂y.
    let dy = try TokenBatch(rows: tokenCount, hidden: hidden)
    var loss: [Float] = [0]
    for i in values.indices {
      let difference = y.elements[i] + values[i]
      loss[0] += difference * difference / 2 / tokensOfAllRanks
      dy.elements[i] = difference / tokensOfAllRanks
    }

    // Backward, with the same handle.
    let dOutput = try exchange.combineBackward(dy, handle)
    try experts.backward(handle, dOutput)
    var dTokens = try exchange.dispatchBackward(handle)
    try gate.backward(
      decision, topkWeightGradients: handle.topkWeightGradients, tokens: tokens, into: &dTokens)
    // dTokens now goes to whatever made the tokens.

    // Experts live on one rank each; the gate is on all, so its gradients are summed.
    try gate.weightGradients.withUnsafeMutableBufferPointer {
      try fabric.allreduce($0, operation: "gate")
    }
    for i in gate.weight.indices { gate.weight[i] -= 2 * gate.weightGradients[i] }
    gate.weightGradients = [Float](repeating: 0, count: gate.weight.count)
    experts.step(rate: 2)

    try loss.withUnsafeMutableBufferPointer { try fabric.allreduce($0, operation: "loss") }
    losses.append(loss[0])
  }
  if fabric.rank == 0 {
    let statistics = exchange.statistics
    print("rows sent: \(statistics.rowsSentFraction), bytes: \(statistics.wireBytes)")
  }
  return losses
}
// end
