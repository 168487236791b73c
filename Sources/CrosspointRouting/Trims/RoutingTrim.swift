import CrosspointCore

/// Takes choices away after the router made them: rows that never travel.
///
/// The first choice of a token always stays. Losses, capacity and counts are of what is left.
public enum RoutingTrim: Sendable, Hashable {
  /// Drops choice k ≥ 1 of a token iff `w_k < threshold · w_0`, and renormalises what is left where the router's weights are
  /// normalised. The `protecting` share of this rank's rows with the largest ``RowTraits/importance``, rounded up, keeps all.
  ///
  /// Source: MC-MoE (arXiv 2410.06270), which is top-2, takes the median of w₁/w₀ as threshold (``PruningCalibration``)
  /// and protects 2 %. More than two choices are ours.
  case pruning(threshold: Double, protecting: Double = 0)
  /// Keeps choice k ≥ 1 of a token with probability `min(1, w_k / threshold)`; the other weights stay as they are.
  ///
  /// Source: GShard (arXiv 2006.16668), which is top-2. Meant for training: route without it in evaluation.
  case randomSecond(threshold: Double = 0.2)
}

/// What a router may know of its rows besides their logits.
public struct RowTraits: Sendable, Hashable {
  /// `[T]`: tokens that each row stands for, by which the auxiliary losses and their counts weigh it; empty: one each.
  public var tokensPerRow: [Int32]
  /// `[T]`: how much a row matters to ``RoutingTrim/pruning(threshold:protecting:)``, for example
  /// ``CrosspointTokens/TokenBatch/rowMagnitudes()``; may be empty where nothing is protected.
  public var importance: [Float]
  /// Of the draws of ``RoutingTrim/randomSecond(threshold:)``: another one for each batch.
  public var seed: UInt64

  public init(tokensPerRow: [Int32] = [], importance: [Float] = [], seed: UInt64 = 0) {
    self.tokensPerRow = tokensPerRow
    self.importance = importance
    self.seed = seed
  }
}

extension TopKRouter {
  /// This router with a trim, or without any.
  /// - Throws: `invalidArgument` for top-1, which has nothing to take away, a pruning threshold or protected share outside
  ///   0…1 (no weight exceeds the first, so more than 1 would drop every other choice), a random threshold that is not
  ///   above zero.
  public func trimmed(by trim: RoutingTrim?) throws(CrosspointError) -> TopKRouter {
    guard trim == nil || topK > 1 else {
      throw Self.invalid("trim", "topK", "1 choice per token leaves nothing to take away")
    }
    switch trim {
    case .pruning(let threshold, let protecting):
      guard threshold >= 0, threshold <= 1 else {
        throw Self.invalid("pruning", "threshold", "\(threshold) is not in 0…1; above 1 every second expert would go")
      }
      guard protecting >= 0, protecting <= 1 else {
        throw Self.invalid("pruning", "protecting", "\(protecting) is not in 0…1")
      }
    case .randomSecond(let threshold):
      guard threshold > 0, threshold.isFinite else {
        throw Self.invalid("randomSecond", "threshold", "\(threshold); it must be finite and above zero")
      }
    case nil: break
    }
    var router = self
    router.trim = trim
    return router
  }

  /// What the trim leaves of a choice.
  /// - Returns: `chosen`, the choice as weights see it; `kept`, what of it is sent.
  func apply(
    _ trim: RoutingTrim, to chosen: [Int32], shares: [Float], traits: RowTraits
  ) throws(CrosspointError) -> (chosen: [Int32], kept: [Int32]) {
    var kept = chosen
    switch trim {
    case .pruning(let threshold, let protecting):
      let isProtected = try protectedRows(share: protecting, rows: chosen.count / topK, traits.importance)
      for slot in kept.indices where slot % topK > 0 && !(isProtected?[slot / topK] ?? false) {
        if Double(shares[slot]) < threshold * Double(shares[slot - slot % topK]) { kept[slot] = -1 }
      }
      return (kept, kept)
    case .randomSecond(let threshold):
      var generator = SplitMix64(seed: traits.seed)
      for slot in kept.indices where slot % topK > 0 {
        if Double(generator.nextUnit()) * threshold >= Double(shares[slot]) { kept[slot] = -1 }
      }
      return (chosen, kept)
    }
  }

  /// Marks the most important rows, the earlier ones first among equals; `nil` for none.
  private func protectedRows(
    share: Double, rows: Int, _ importance: [Float]
  ) throws(CrosspointError) -> [Bool]? {
    guard share > 0 else { return nil }
    guard importance.count == rows else {
      throw Self.invalid(
        "pruning", "importance", "\(importance.count) values for \(rows) rows, of which some are protected")
    }
    if let bad = importance.firstIndex(where: { !$0.isFinite }) {
      throw CrosspointError(
        .nonFinite, operation: "pruning", argument: "importance", "row \(bad) has \(importance[bad])")
    }
    let order = (0..<rows).sorted { importance[$0] > importance[$1] || (importance[$0] == importance[$1] && $0 < $1) }
    var marks = [Bool](repeating: false, count: rows)
    for row in order.prefix(Int((share * Double(rows)).rounded(.up))) { marks[row] = true }
    return marks
  }
}
