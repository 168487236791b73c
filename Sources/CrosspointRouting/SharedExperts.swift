import CrosspointCore
import CrosspointTokens

/// Shared experts: experts that see every token, besides the routed ones (DeepSeekMoE, arXiv 2401.06066, section 3.2;
/// MoME, arXiv 2510.04136).
///
///     y = Σ_shared E(x) + Σ_top-k w E(x)
///
/// Every rank holds them whole and runs them on its own tokens, so they are never dispatched, have no weight and no
/// place in a ``Routing``, and their parameters are all-reduced like any other shared ones. N shared experts of width w
/// are one expert of width N·w. What is left for a model to do is one addition forward and one backward:
///
/// ```swift
/// let handle = try exchange.dispatch(tokens, decision.routing) { sharedExpert.forwardSlice() }  // while bytes travel
/// var y = try exchange.combine(experts.forward(handle), handle)
/// try y.add(sharedExpert.outputs)
/// // backward: dy reaches both
/// let dOutput = try exchange.combineBackward(dy, handle) { sharedExpert.backwardSlice(dy) }
/// var dTokens = try exchange.dispatchBackward(experts.backward(dOutput), handle)
/// try dTokens.add(sharedExpert.inputGradients)
/// try gate.backward(decision, topkWeightGradients: handle.topkWeightGradients, tokens: tokens, into: &dTokens)
/// ```
extension TokenBatch {
  /// Adds another batch of the same shape, element by element.
  /// - Throws: `invalidArgument` if the shapes differ, or for rows that are no floats.
  public mutating func add(_ other: borrowing TokenBatch) throws(CrosspointError) {
    guard other.rows == rows, other.hidden == hidden else {
      throw TopKRouter.invalid("add", "other", "\(other.rows) × \(other.hidden) to \(rows) × \(hidden)")
    }
    try requireFloats(operation: "add", argument: "self")
    try other.requireFloats(operation: "add", argument: "other")
    kernels.axpy(base, 1, other.base, rows * hidden)
  }
}
