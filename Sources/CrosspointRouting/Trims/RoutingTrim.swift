import CrosspointCore

/// Takes choices away after the router made them: rows that never travel.
///
/// The first choice of a token always stays. Losses, capacity and counts are of what is left.
public enum RoutingTrim: Sendable, Hashable {
  /// Drops choice k ≥ 1 of a token iff `w_k < threshold · w_0`, and renormalises what is left where the router's weights are
  /// normalised. The `protecting` share of this rank's rows with the largest ``RowTraits`` importance, rounded up, keeps all.
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
  package var tokensPerRow: [Int32]
  package var importance: [Float]
  package var seed: UInt64

  /// - Parameters:
  ///   - tokensPerRow: `[T]`, tokens that each row stands for, by which the auxiliary losses and their counts weigh it; empty:
  ///     one each.
  ///   - importance: `[T]`, how much a row matters to ``RoutingTrim/pruning(threshold:protecting:)``; empty where nothing is
  ///     protected, and in ``LinearRouter``, which takes ‖x‖₁.
  ///   - seed: of the draws of ``RoutingTrim/randomSecond(threshold:)``; another one for each batch.
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

  /// Takes away from what is sent.
  func apply(
    _ trim: RoutingTrim, _ traits: RowTraits, to decision: inout RoutingDecision
  ) throws(CrosspointError) {
    switch trim {
    case .pruning(let threshold, let protecting):
      let rows = decision.routing.tokens
      try check(traits.importance, rows: rows, share: protecting)
      let count = Int((protecting * Double(rows)).rounded(.up))
      var protected = count == 0 ? nil : MostImportant(count: count, of: traits.importance)
      for row in 0..<rows where protected?.takes(traits.importance[row]) != true {
        let first = row * topK
        for slot in first + 1..<first + topK
        where Double(decision.shares[slot]) < threshold * Double(decision.shares[first]) {
          decision.routing.topkIndices[slot] = -1
        }
      }
    case .randomSecond(let threshold):
      var generator = SplitMix64(seed: traits.seed)
      for slot in decision.shares.indices where slot % topK > 0 {
        if Double(generator.nextUnit()) * threshold >= Double(decision.shares[slot]) {
          decision.routing.topkIndices[slot] = -1
        }
      }
    }
  }

  private func check(_ importance: [Float], rows: Int, share: Double) throws(CrosspointError) {
    guard share > 0 else { return }
    guard importance.count == rows else {
      throw Self.invalid(
        "pruning", "importance", "\(importance.count) values for \(rows) rows, of which some are protected")
    }
    if let bad = importance.firstIndex(where: { !$0.isFinite }) {
      throw CrosspointError(
        .nonFinite, operation: "pruning", argument: "importance", "row \(bad) has \(importance[bad])")
    }
  }
}

/// The most important of some rows, the earlier ones first among equals.
private struct MostImportant {
  /// The least importance among them.
  private var least: Float
  /// How many of that importance are among them.
  private var left: Int

  /// - Parameters:
  ///   - count: how many; at most as many as there are rows.
  ///   - importance: finite.
  init(count: Int, of importance: [Float]) {
    // Halving finds the largest importance that so many rows reach.
    var (low, high) = (Self.order(-.greatestFiniteMagnitude), Self.order(.greatestFiniteMagnitude))
    while low < high {
      let middle = (low + high + 1) >> 1
      if importance.count(where: { Self.order($0) >= middle }) >= count { low = middle } else { high = middle - 1 }
    }
    let bits = Int32(truncatingIfNeeded: low)
    let least = Float(bitPattern: UInt32(bitPattern: bits < 0 ? bits ^ .max : bits))
    self.least = least
    left = count - importance.count { $0 > least }
  }

  /// Whether a row is among them; to be asked of every row in order.
  mutating func takes(_ importance: Float) -> Bool {
    if importance == least { left -= 1 }
    return importance > least || (importance == least && left >= 0)
  }

  /// Finite floats as integers that rise with them.
  private static func order(_ x: Float) -> Int {
    let bits = Int32(bitPattern: x.bitPattern)
    return Int(bits < 0 ? bits ^ .max : bits)
  }
}
