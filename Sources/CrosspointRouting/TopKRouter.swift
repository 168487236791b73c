import CrosspointCore

/// Sends each token to its K best experts: logits in, ``RoutingDecision`` out.
///
/// A value that holds options and no parameters. Logits come from any gate: ``LinearRouter`` is the usual one.
///
/// ```swift
/// let router = try TopKRouter(experts: 4, topK: 2, scoring: .topKThenSoftmax)
/// let decision = try router.route(logits: [0, 2, 1, 2])   // one token
/// decision.routing.topkIndices                            // [1, 3]: the lower index wins a tie
/// decision.routing.topkWeights                            // [0.5, 0.5]
/// ```
public struct TopKRouter: Sendable, Hashable {
  /// How logits z become weights of the chosen experts.
  public enum Scoring: Sendable, Hashable {
    /// `p = softmax(z)` over all experts, then the k largest. The weights are p itself, or `p / Σ chosen p` if renormalised
    /// (Switch and GShard: Fedus et al., arXiv 2101.03961, section 2.1; Lepikhin et al., arXiv 2006.16668, algorithm 1).
    case softmaxThenTopK(renormalised: Bool)
    /// The k largest logits, then softmax over those k: equal to `softmaxThenTopK(renormalised: true)`
    /// (Shazeer et al., arXiv 1701.06538, equations 3 to 5; Mixtral, arXiv 2401.04088, section 2.1).
    case topKThenSoftmax
    /// `s = σ(z)`, the k largest, weights `scale · s / Σ chosen s` (DeepSeek-V3, arXiv 2412.19437, equations 12 to 16,
    /// which uses a scale of 2.5).
    case sigmoid(scale: Float)
  }

  /// Number of experts E over all ranks.
  package let experts: Int
  /// Experts per token K.
  package let topK: Int
  /// How logits become weights.
  package let scoring: Scoring
  /// Coefficient of the load-balance loss ``RoutingLosses/loadBalance``; 0 is off.
  package let loadBalance: Float
  /// Coefficient of the z-loss ``RoutingLosses/z``; 0 is off.
  package let zLoss: Float
  /// Capacity of each expert as a multiple of the mean load of this rank's tokens; `nil` is dropless. See
  /// ``capacity(tokens:)``.
  package let capacityFactor: Double?
  /// What is taken away of the choice; see ``trimmed(by:)``.
  public internal(set) var trim: RoutingTrim?
  /// Groups that each token is held to; see ``limited(toGroups:of:)``.
  package internal(set) var groupLimit: GroupLimit?
  /// What each token pays for groups; see ``priced(_:perGroupOf:)``.
  package internal(set) var groupPrice: GroupPrice?

  /// - Throws: `invalidArgument` for `experts` outside 1…2²⁰, `topK` outside `1 ... experts`, a coefficient that is negative or not
  ///   finite, a scale or capacity factor that is not above zero.
  public init(
    experts: Int, topK: Int, scoring: Scoring, loadBalance: Float = 0, zLoss: Float = 0,
    capacityFactor: Double? = nil
  ) throws(CrosspointError) {
    func require(_ condition: Bool, _ argument: String, _ message: String) throws(CrosspointError) {
      guard condition else { throw Self.invalid("TopKRouter", argument, message) }
    }
    try Extent.require(experts, in: Extent.experts, operation: "TopKRouter", argument: "experts")
    try require(topK > 0 && topK <= experts, "topK", "\(topK) of \(experts) experts")
    for (name, value) in [("loadBalance", loadBalance), ("zLoss", zLoss)] {
      try require(value >= 0 && value.isFinite, name, "\(value); a coefficient is finite and not negative")
    }
    if case .sigmoid(let scale) = scoring {
      try require(scale > 0 && scale.isFinite, "scoring", "sigmoid scale \(scale); it must be finite and above zero")
    }
    if let factor = capacityFactor {
      try require(factor > 0 && factor.isFinite, "capacityFactor", "\(factor); it must be finite and above zero")
    }
    self.experts = experts
    self.topK = topK
    self.scoring = scoring
    self.loadBalance = loadBalance
    self.zLoss = zLoss
    self.capacityFactor = capacityFactor
  }

  /// Chooses experts and weights for T tokens and measures the auxiliary losses.
  ///
  /// Choices are ordered by falling score; among equal scores the lowest expert index wins. Local, unless `reduceCounts`
  /// communicates.
  ///
  /// - Parameters:
  ///   - logits: `[T × E]` row-major, T ≥ 0.
  ///   - bias: added to the scores (to the logits under `topKThenSoftmax`) for the choice only; weights do not see it.
  ///   - traits: what trims and losses need to know of the rows.
  ///   - reduceCounts: makes the load-balance loss use the counts of all ranks. It receives `[E + 2]` numbers (kept pairs
  ///     per expert and rows, both weighted by `tokensPerRow`, and failed ranks) and replaces each by its sum over ranks. It is called exactly once, even where
  ///     this rank's logits are refused, so that no rank is left waiting. Without it the counts are this rank's own.
  /// - Throws: `invalidArgument` for wrong shapes, `nonFinite` naming the first token with a NaN or infinite logit. With
  ///   `reduceCounts` every rank throws if one does: `refusedElsewhere` those whose own logits are well.
  public func route(
    logits: UnsafeBufferPointer<Float>, bias: SelectionBias? = nil, traits: RowTraits = RowTraits(),
    reduceCounts: CountReduction = { _ in }
  ) throws(CrosspointError) -> RoutingDecision {
    var decision = RoutingDecision()
    try route(logits: logits, bias: bias, traits: traits, into: &decision, reduceCounts: reduceCounts)
    return decision
  }

  /// The same in the memory of an earlier decision, which it replaces: allocates nothing once that is large enough.
  /// - Throws: likewise; the decision is then of no use but as memory.
  public func route(
    logits: UnsafeBufferPointer<Float>, bias: SelectionBias? = nil, traits: RowTraits = RowTraits(),
    into decision: inout RoutingDecision, reduceCounts: CountReduction = { _ in }
  ) throws(CrosspointError) {
    try settle(&decision, reduceCounts) { decision throws(CrosspointError) in
      try choose(logits, bias, traits, into: &decision)
    }
  }

  /// Makes a choice, adds up its counts over ranks, also where it throws, and measures its losses.
  func settle(
    _ decision: inout RoutingDecision, _ reduceCounts: CountReduction,
    choice: (inout RoutingDecision) throws(CrosspointError) -> Void
  ) throws(CrosspointError) {
    var failure: CrosspointError?
    decision.load.refill(with: 0, count: experts + 2)
    do throws(CrosspointError) {
      try choice(&decision)
      decision.countLoad()
    } catch {
      decision.load[experts + 1] = 1
      failure = error
    }
    try reduceCounts(&decision.load)
    if let failure { throw failure }
    guard decision.load.count == experts + 2, decision.load.allSatisfy({ $0.isFinite && $0 >= 0 }),
      decision.load[experts] >= decision.totalWeight
    else {
      throw Self.invalid("route", "reduceCounts", "it did not return \(experts + 2) sums of counts")
    }
    guard decision.load[experts + 1] == 0 else {
      throw CrosspointError(
        .refusedElsewhere, operation: "route", argument: "logits",
        "\(Int(decision.load[experts + 1])) other ranks refused theirs; see their errors")
    }
    measurePull(&decision)
    decision.losses = measureLosses(decision)
  }

  /// ``route(logits:bias:traits:reduceCounts:)-(UnsafeBufferPointer<Float>,_,_,_)`` for an array.
  public func route(
    logits: [Float], bias: SelectionBias? = nil, traits: RowTraits = RowTraits(),
    reduceCounts: CountReduction = { _ in }
  ) throws(CrosspointError) -> RoutingDecision {
    try logits.withUnsafeBufferPointer { buffer throws(CrosspointError) in
      try route(logits: buffer, bias: bias, traits: traits, reduceCounts: reduceCounts)
    }
  }

  static func invalid(_ operation: String, _ argument: String, _ message: String) -> CrosspointError {
    CrosspointError(.invalidArgument, operation: operation, argument: argument, message)
  }
}

/// Replaces every count by its sum over all ranks: routing communicates in no other way.
///
/// ```swift
/// { counts throws(CrosspointError) in
///   try counts.withUnsafeMutableBufferPointer { values throws(CrosspointError) in
///     try fabric.allreduce(values, operation: "route")
///   }
/// }
/// ```
public typealias CountReduction = (inout [Double]) throws(CrosspointError) -> Void
