import CrosspointCore
import CrosspointRouting
import CrosspointTokens

/// Merges rows that are alike: one of them travels, and all get the experts' output for it.
///
/// In order, each row joins the most similar representative (by cosine) of its sequence among the
/// last `window` rows, the earliest among equals, if the cosine reaches the threshold; otherwise it becomes one itself.
///
///     mean     x̄_j = mean of the members;      y_t = x_t + MoE(x̄)_j(t)
///     causal   x̄_j = x of the representative;  y_t = x_t + MoE(x̄)_j(t)
///
/// With means the representative's own output depends on members that come after it, so that form is not causal. In the
/// causal form whether a row joins depends on it and on earlier rows, and what it gets on an earlier row alone: nothing
/// leaks, also through further causal stages, since rows stay in the order of their representatives.
///
/// The idea of a threshold learned from data, so that each input keeps as many tokens as it needs, is DyMU's (arXiv
/// 2504.17040), which merges along a bipartite matching; the greedy order, the causal form and the running quantile are
/// ours. Which rows merge is a constant of the backward pass.
public final class TokenMerging: TokenStage, GroupingStage {
  public let name: String
  package let options: MergingOptions
  /// τ: cosines from here on merge.
  package private(set) var threshold: Double
  package private(set) var groups = RowGroups()
  /// Rows seen in training since the last step, and those of them merged away.
  private var (seen, merged) = (0, 0)
  /// `[T]`: 1/‖x‖, 0 for a row of zeros.
  private var inverseNorms: [Float] = []
  /// The token that each row began with.
  private var representatives: [Int] = []

  /// Where τ stays: from −1, all alike, to a little over 1, nothing alike.
  static let range = -1.0...1.01

  /// - Throws: `invalidArgument` for a rate outside 0…1, a threshold outside −1…1 or at −1, which would merge everything, a
  ///   gain that is negative or not finite, a window below one.
  public init(_ options: MergingOptions, name: String = "merging") throws(CrosspointError) {
    self.name = name
    self.options = options
    switch options.threshold {
    case .given(let value): threshold = value
    case .learned(let rate, let start, let gain):
      threshold = start
      guard rate >= 0, rate <= 1 else { throw invalid("rate", "\(rate) is not in 0…1") }
      guard gain >= 0, gain.isFinite else {
        throw invalid("gain", "\(gain); it must be finite and not negative")
      }
    }
    guard threshold > -1, threshold <= 1 else {
      throw invalid("threshold", "\(threshold) is no cosine above −1 and up to 1; at −1 every row would be merged away")
    }
    guard options.window > 0 else {
      throw invalid("window", "\(options.window) rows; it must be at least one")
    }
  }

  public var isCausal: Bool { options.isCausal }
  public var configuration: String { "\(name):\(options.text)" }

  public func reduce(
    _ tokens: borrowing TokenBatch, _ layout: RowLayout, _ context: StageContext
  ) throws(CrosspointError) -> TokenRows {
    let longest = layout.tokensPerSequence.max() ?? 0
    guard longest == 0 || options.window <= longest else {
      throw invalid("window", "\(options.window) rows are longer than any sequence; the longest has \(longest)")
    }
    try measure(tokens, layout)
    groups.begin(layout)
    representatives.removeAll(keepingCapacity: true)
    var token = 0
    for (sequence, rows) in layout.rowsPerSequence.enumerated() {
      let start = token
      while token < start + rows {
        let weight = layout.tokensPerRow[token]
        let row = weight == 0 ? -1 : place(token, tokens, from: max(start, token - options.window), sequence)
        groups.addMember(of: row, tokens: weight, source: row)
        token += 1
      }
    }
    if options.isCausal { groups.finishFirsts() } else { groups.finishMeans(weights: layout.tokensPerRow) }
    if context.isTraining {
      let live = groups.rowOf.reduce(0) { $0 + ($1 >= 0 ? 1 : 0) }
      seen += live
      merged += live - groups.layout.rows
    }
    return try groups.reduce(tokens)
  }

  /// Moves τ by what all ranks merged since the last step; a given threshold stays.
  public func step(reduceCounts: CountReduction) throws(CrosspointError) {
    guard case .learned(let rate, _, let gain) = options.threshold else { return }
    let observed = try sharedRate(merged, of: seen, reduceCounts: reduceCounts)
    (seen, merged) = (0, 0)
    guard let observed else { return }
    threshold += gain * (observed - rate)
    threshold = min(max(threshold, Self.range.lowerBound), Self.range.upperBound)
  }

  /// τ, if it is learned.
  public var state: [UInt64] {
    if case .learned = options.threshold { [threshold.bitPattern] } else { [] }
  }

  public func restore(_ state: [UInt64]) throws(CrosspointError) {
    try expectState(state, count: self.state.count)
    if let bits = state.first {
      let value = Double(bitPattern: bits)
      guard Self.range.contains(value) else {
        throw CrosspointError(
          .checkpointMismatch, operation: name, argument: "state", "a threshold of \(value) is not in \(Self.range)")
      }
      threshold = value
    }
    (seen, merged) = (0, 0)
  }

  /// Fills the norms.
  private func measure(_ tokens: borrowing TokenBatch, _ layout: RowLayout) throws(CrosspointError) {
    try tokens.requireFloats(operation: name, argument: "tokens")
    inverseNorms.removeAll(keepingCapacity: true)
    for row in 0..<tokens.rows {
      let x = tokens.base + row * tokens.hidden
      let square = kernels.dot(x, x, tokens.hidden)
      guard square.isFinite || layout.tokensPerRow[row] == 0 else {
        throw CrosspointError(
          .nonFinite, operation: name, argument: "tokens", "row \(row) has a square norm of \(square)")
      }
      inverseNorms.append(square > 0 ? 1 / square.squareRoot() : 0)
    }
  }

  /// The row that a token joins, a new one if nothing is alike.
  private func place(_ token: Int, _ tokens: borrowing TokenBatch, from first: Int, _ sequence: Int) -> Int32 {
    var (best, bestCosine) = (Int32(-1), -Float.infinity)
    let width = tokens.hidden
    // From the latest back, so that the earliest among equals is the last to be taken.
    for row in representatives.indices.reversed() {
      let other = representatives[row]
      guard other >= first else { break }
      let product = kernels.dot(tokens.base + token * width, tokens.base + other * width, width)
      let cosine = product * inverseNorms[token] * inverseNorms[other]
      if cosine >= bestCosine { (best, bestCosine) = (Int32(row), cosine) }
    }
    if best >= 0 && Double(bestCosine) >= threshold { return best }
    representatives.append(token)
    return groups.addRow(sequence: sequence)
  }
}
