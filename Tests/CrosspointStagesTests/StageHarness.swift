import CrosspointCore
import CrosspointRouting
import CrosspointStages
import CrosspointTestSupport
import CrosspointTokens
import Testing

/// The row map that stands in for the experts.
private let experts = ToyExperts()

/// `x + expand(E(reduce(x)))`, and the rows that travelled.
func forward(
  _ pipeline: TokenPipeline, _ x: borrowing TokenBatch, _ layout: RowLayout, _ context: StageContext
) throws -> (y: [Float], rows: [Float], layout: RowLayout) {
  let rows = try pipeline.reduce(x, layout, context)
  var y = try pipeline.expand(experts.forward(rows.tokens, rowsPerExpert: [rows.tokens.rows], firstExpert: 3))
  try y.add(x)
  return (y.array, rows.tokens.array, rows.layout)
}

/// ∂(⟨dy, y⟩ + scale · auxiliary loss)/∂x after ``forward(_:_:_:_:)``; the parameters' part is in the pipeline.
func backward(
  _ pipeline: TokenPipeline, _ x: borrowing TokenBatch, rows: [Float], dy: borrowing TokenBatch, scale: Float = 1
) throws -> [Float] {
  let dOutputs = try pipeline.expandBackward(dy)
  let kept = try TokenBatch(rows, hidden: x.hidden)
  let dRows = try experts.backward(kept, dOutputs, rowsPerExpert: [kept.rows], firstExpert: 3)
  var dx = try pipeline.reduceBackward(dRows, tokens: x, auxiliaryScale: scale)
  try dx.add(dy)
  return dx.array
}

/// Compares the gradients of a pipeline with central differences, tokens and parameters, and both with each other.
func expectExactGradients(
  _ layout: RowLayout, hidden: Int = 6, context: StageContext = StageContext(step: 3, isTraining: true),
  seed: UInt64 = 5, scale: Float = 0.5, tolerance: Double = 1e-3, _ pipeline: TokenPipeline,
  prepare: () throws -> Void = {}, sourceLocation: SourceLocation = #_sourceLocation
) throws {
  let x = randomFloats(layout.rows * hidden, seed: seed)
  let dy = randomFloats(layout.rows * hidden, seed: seed + 1)
  let parameters = pipeline.parameters
  try prepare()
  let batch = try TokenBatch(x, hidden: hidden)
  let base = try forward(pipeline, batch, layout, context)
  pipeline.resetGradients()
  let exact = try backward(pipeline, batch, rows: base.rows, dy: TokenBatch(dy, hidden: hidden), scale: scale)
  let exactParameters = pipeline.gradients

  func loss(_ x: [Float], _ parameters: [Float]) throws -> Double {
    pipeline.parameters = parameters
    try prepare()
    let moved = try forward(pipeline, TokenBatch(x, hidden: hidden), layout, context)
    #expect(moved.layout == base.layout, "the case must not sit on an edge", sourceLocation: sourceLocation)
    return zip(moved.y, dy).reduce(0.0) { $0 + Double($1.0) * Double($1.1) }
      + Double(scale) * pipeline.auxiliaryLoss
  }
  let numeric = try centralDifferences(at: x, step: 1e-3) { try loss($0, parameters) }
  #expect(relativeError(exact, numeric.map(Float.init)) < tolerance, sourceLocation: sourceLocation)
  if !parameters.isEmpty {
    let numeric = try centralDifferences(at: parameters, step: 1e-3) { try loss(x, $0) }
    #expect(relativeError(exactParameters, numeric.map(Float.init)) < tolerance, sourceLocation: sourceLocation)
    #expect(exactParameters.contains { abs($0) > 1e-3 }, sourceLocation: sourceLocation)
  }
  pipeline.parameters = parameters
}

let training = StageContext(step: 0, isTraining: true)
let evaluation = StageContext(step: 0, isTraining: false)

/// The error that `body` throws, if any.
func failure(_ body: () throws -> Void) -> CrosspointError? {
  do { try body() } catch { return error as? CrosspointError }
  return nil
}
