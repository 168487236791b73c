import CrosspointCore
import CrosspointRouting
import CrosspointTestSupport
import Testing

/// Holds a router's gradients, those of its losses included, against central differences.
///
/// - Parameter router: top-2 of six experts, whose choice a small step of the logits does not change.
func expectExactGradients(of router: TopKRouter) throws {
  let logits = separatedLogits(tokens: 5, experts: 6, seed: 6)
  let gradients = randomFloats(10, seed: 7)
  let decision = try router.route(logits: logits)
  let numeric = try centralDifferences(at: logits, step: 1e-3) { logits in
    let moved = try router.route(logits: logits)
    #expect(moved.routing.topkIndices == decision.routing.topkIndices)
    return moved.losses.total
      + zip(moved.routing.topkWeights, gradients).reduce(0.0) { $0 + Double($1.0) * Double($1.1) }
  }
  let exact = try router.backward(decision, topkWeightGradients: gradients)
  #expect(relativeError(exact, numeric.map(Float.init)) < 2e-3)
}
