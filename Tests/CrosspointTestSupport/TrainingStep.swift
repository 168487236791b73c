import CrosspointCore
import CrosspointExchange
import CrosspointFabric
import CrosspointRouting
import CrosspointTokens

/// Everything that one step through an exchange gives on one rank: what two fabrics must agree on bit for bit.
public struct StepResult: Sendable, Equatable {
  public var y: [Float]
  public var tokenGradients: [Float]
  public var weightGradients: [Float]
  public var compensationGradients: [Float]
  public var rowOrigins: [Float]

  /// Whether every bit is the same, NaNs and signed zeros included.
  public func isBitwiseEqual(to other: StepResult) -> Bool {
    firstBitDifference(y, other.y) == nil && firstBitDifference(tokenGradients, other.tokenGradients) == nil
      && firstBitDifference(weightGradients, other.weightGradients) == nil
      && firstBitDifference(compensationGradients, other.compensationGradients) == nil
      && firstBitDifference(rowOrigins, other.rowOrigins) == nil
  }
}

/// Dispatch, toy experts, combine and both backward passes with the output gradient `dy`.
/// - Parameters:
///   - inPlace: whether experts write to the handle's memory.
///   - work: what to do during each transfer, in slices.
public func trainingStep(
  _ exchange: ExpertExchange, tokens: borrowing TokenBatch, routing: Routing, dy: borrowing TokenBatch,
  labels: [Int32]? = nil, inPlace: Bool = false,
  meanwhile work: (TransferKind) throws(CrosspointError) -> Bool = { _ throws(CrosspointError) in false
  }
) throws(CrosspointError) -> StepResult {
  let experts = ToyExperts()
  let first = exchange.localExperts.lowerBound
  let handle = try exchange.dispatch(tokens, routing, labels: labels) { () throws(CrosspointError) in
    try work(.dispatch)
  }
  let output = try experts.forward(handle.rows, rowsPerExpert: handle.rowsPerExpert, firstExpert: first)
  func combineWork() throws(CrosspointError) -> Bool { try work(.combine) }
  if inPlace { _ = try handle.outputs().elements.update(fromContentsOf: output.elements) }
  let y =
    inPlace
    ? try exchange.combine(handle, meanwhile: combineWork)
    : try exchange.combine(output, handle, meanwhile: combineWork)
  let dOutput = try exchange.combineBackward(dy, handle) { () throws(CrosspointError) in
    try work(.combineBackward)
  }
  let dRows = try experts.backward(handle.rows, dOutput, rowsPerExpert: handle.rowsPerExpert, firstExpert: first)
  func backwardWork() throws(CrosspointError) -> Bool { try work(.dispatchBackward) }
  if inPlace { _ = try handle.rowGradients().elements.update(fromContentsOf: dRows.elements) }
  let dTokens =
    inPlace
    ? try exchange.dispatchBackward(handle, meanwhile: backwardWork)
    : try exchange.dispatchBackward(dRows, handle, meanwhile: backwardWork)
  return StepResult(
    y: y.array, tokenGradients: dTokens.array, weightGradients: handle.topkWeightGradients,
    compensationGradients: exchange.compensator.gradients, rowOrigins: handle.rows.array)
}

/// Tokens of which many are alike: `kinds` prototypes plus noise, so that clusters have something to find.
public func clusteredBatch(
  rows: Int, hidden: Int, kinds: Int = 5, noise: Float = 0.1, seed: UInt64
) throws(CrosspointError) -> TokenBatch {
  let prototypes = randomFloats(kinds * hidden, seed: 99)
  var tokens = randomFloats(rows * hidden, seed: seed)
  for row in 0..<rows {
    for d in 0..<hidden {
      tokens[row * hidden + d] = prototypes[(row % kinds) * hidden + d] + noise * tokens[row * hidden + d]
    }
  }
  return try TokenBatch(tokens, hidden: hidden)
}

/// A random routing: distinct experts per token, weights in (0, 1), some choices not sent.
public func randomRouting(
  tokens: Int, topK: Int, experts: Int, notSent: Float = 0.1, seed: UInt64
) throws(CrosspointError) -> Routing {
  var generator = SplitMix64(seed: seed)
  var indices: [Int32] = []
  var weights: [Float] = []
  for _ in 0..<tokens {
    var pool = (0..<experts).map { Int32($0) }
    for _ in 0..<topK {
      let pick = pool.remove(at: Int.random(in: 0..<pool.count, using: &generator))
      indices.append(generator.nextUnit() < notSent ? -1 : pick)
      weights.append(0.1 + 0.8 * generator.nextUnit())
    }
  }
  return try Routing(topkIndices: indices, topkWeights: weights, topK: topK, experts: experts)
}
