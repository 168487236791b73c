import CrosspointCore
import CrosspointTokens

/// The usual gate: logits `z = W x`, then a ``TopKRouter``.
///
/// Every rank holds the same W, as the same seed gives it; all-reduce ``weightGradients`` with the other shared parameters.
///
/// ```swift
/// var gate = try LinearRouter(hidden: 768, router: TopKRouter(experts: 16, topK: 2, scoring: .topKThenSoftmax), seed: 1)
/// let decision = try gate.route(tokens)                       // decision.routing goes to the exchange
/// …
/// try gate.backward(decision, topkWeightGradients: handle.topkWeightGradients, tokens: tokens, into: &dTokens)
/// ```
public struct LinearRouter: Sendable {
  /// Floats per token d.
  package let hidden: Int
  /// What turns logits into a decision.
  package let router: TopKRouter
  /// W, `[E × d]` row-major; another count is refused by ``route(_:traits:reduceCounts:)``.
  public var weight: [Float]
  /// ∂L/∂W, `[E × d]`, accumulated by `backward`; the caller zeroes it after each step.
  public var weightGradients: [Float]
  /// Moves the choice if present. The caller updates it once per optimiser step.
  public var selectionBias: SelectionBias?

  /// A gate with W uniform in ±1/√d.
  /// - Throws: `invalidArgument` for a hidden size outside 1…2²⁴, `outOfMemory`.
  public init(hidden: Int, router: TopKRouter, seed: UInt64) throws(CrosspointError) {
    try Extent.require(hidden, in: Extent.hidden, operation: "LinearRouter", argument: "hidden")
    try requireMemory(bytes: 8 * router.experts * hidden, operation: "LinearRouter", argument: "hidden")
    let bound = 1 / Float(hidden).squareRoot()
    var generator = SplitMix64(seed: seed)
    self.hidden = hidden
    self.router = router
    weight = (0..<router.experts * hidden).map { _ in bound * (2 * generator.nextUnit() - 1) }
    weightGradients = [Float](repeating: 0, count: weight.count)
  }

  /// Chooses experts for `[T × d]` tokens. Local, unless `reduceCounts` communicates: see
  /// ``TopKRouter/route(logits:bias:traits:reduceCounts:)-(UnsafeBufferPointer<Float>,_,_,_)``.
  /// Rows that pruning protects are those of the largest ‖x‖₁ unless `traits` says otherwise.
  /// - Throws: `invalidArgument` for tokens of another width or a ``weight`` of another count, `nonFinite` naming the first
  ///   token whose logits are not finite.
  public func route(
    _ tokens: borrowing TokenBatch, traits: RowTraits = RowTraits(), reduceCounts: CountReduction = { _ in }
  ) throws(CrosspointError) -> RoutingDecision {
    var decision = RoutingDecision()
    try router.settle(&decision, reduceCounts) { decision throws(CrosspointError) in
      try check(tokens, operation: "route", argument: "tokens")
      try check(weight, operation: "route", argument: "weight")
      var traits = traits
      if case .pruning(_, let protecting) = router.trim, protecting > 0, traits.importance.isEmpty {
        traits.importance = tokens.rowMagnitudes()
      }
      try logits(tokens).withUnsafeBufferPointer { logits throws(CrosspointError) in
        try router.choose(logits, selectionBias, traits, into: &decision)
      }
    }
    return decision
  }

  /// The gradient of weights and auxiliary losses with respect to W and tokens; both are added to what is there.
  ///
  /// - Parameters:
  ///   - decision: what ``route(_:traits:reduceCounts:)`` returned for `tokens`.
  ///   - topkWeightGradients: `[T × K]`, as an exchange's combineBackward gives them.
  ///   - tokens: the tokens that were routed.
  ///   - tokenGradients: `[T × d]`, ∂L/∂tokens; the gate's part is added.
  ///   - auxiliaryScale: see ``TopKRouter/backward(_:topkWeightGradients:auxiliaryScale:)``.
  /// - Throws: `invalidArgument` for shapes that do not match, those of ``weight`` and ``weightGradients`` included.
  public mutating func backward(
    _ decision: RoutingDecision, topkWeightGradients: [Float], tokens: borrowing TokenBatch,
    into tokenGradients: inout TokenBatch, auxiliaryScale: Float = 1
  ) throws(CrosspointError) {
    try check(tokens, operation: "backward", argument: "tokens", rows: decision.routing.tokens)
    try check(tokenGradients, operation: "backward", argument: "tokenGradients", rows: decision.routing.tokens)
    try check(weight, operation: "backward", argument: "weight")
    try check(weightGradients, operation: "backward", argument: "weightGradients")
    let dLogits = try router.backward(
      decision, topkWeightGradients: topkWeightGradients, auxiliaryScale: auxiliaryScale)
    let (experts, hidden, x, dx) = (router.experts, hidden, tokens.base, tokenGradients.base)
    weight.withUnsafeBufferPointer { w in
      weightGradients.withUnsafeMutableBufferPointer { dw in
        guard let w = w.baseAddress, let dw = dw.baseAddress else { return }
        for i in dLogits.indices where dLogits[i] != 0 {
          let (row, column) = (i / experts * hidden, i % experts * hidden)
          kernels.axpy(dw + column, dLogits[i], x + row, hidden)
          kernels.axpy(dx + row, dLogits[i], w + column, hidden)
        }
      }
    }
  }

  private func logits(_ tokens: borrowing TokenBatch) -> [Float] {
    let (experts, hidden, rows, x) = (router.experts, hidden, tokens.rows, tokens.base)
    return weight.withUnsafeBufferPointer { weight in
      [Float](unsafeUninitializedCapacity: rows * experts) { out, count in
        guard let w = weight.baseAddress else { return }
        for row in 0..<rows {
          for expert in 0..<experts {
            out.initializeElement(
              at: row * experts + expert, to: kernels.dot(x + row * hidden, w + expert * hidden, hidden))
          }
        }
        count = rows * experts
      }
    }
  }

  private func check(_ values: [Float], operation: String, argument: String) throws(CrosspointError) {
    guard values.count == router.experts * hidden else {
      throw TopKRouter.invalid(
        operation, argument, "\(values.count) numbers where \(router.experts) × \(hidden) are expected")
    }
  }

  private func check(
    _ batch: borrowing TokenBatch, operation: String, argument: String, rows: Int? = nil
  ) throws(CrosspointError) {
    try batch.requireFloats(operation: operation, argument: argument)
    let rows = rows ?? batch.rows
    guard batch.hidden == hidden, batch.rows == rows else {
      throw TopKRouter.invalid(
        operation, argument, "\(batch.rows) × \(batch.hidden) where \(rows) × \(hidden) is expected")
    }
  }
}
