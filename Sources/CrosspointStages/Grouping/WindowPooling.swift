import CrosspointCore
import CrosspointRouting
import CrosspointTokens

/// Pools windows of g consecutive rows into one: x̄ = their mean, and each of them gets the experts' output for x̄.
///
///     x̄_j = mean(window j);  y_t = x_t + MoE(x̄)_win(t)
///
/// With one router and one set of experts serving every granularity g this is MoME's shared router (arXiv 2510.04136).
/// What is ours: the pooling sits in front of the exchange, the ragged tail of a sequence is a window of its own instead
/// of being dropped, means are weighted by the tokens that rows stand for (not if shifted), and padding is no part of any.
///
/// A mean shows each token its successors in the window, so the stage is not causal, unless the outputs are shifted: then
/// the tokens of a window get the output of the window before, and those of the first one none.
public final class WindowPooling: TokenStage, GroupingStage {
  /// Which granularity a batch gets.
  public enum Choice: Sendable, Hashable {
    case fixed(Int)
    /// In training one of these, drawn for each step and alike on every rank; in evaluation the first.
    case sampled([Int], seed: UInt64)
  }

  public let name: String
  package let choice: Choice
  /// All windows that this stage may use.
  package let granularities: [Int]
  /// Whether outputs go to the next window. It changes the model, and makes the stage causal.
  package let isShifted: Bool
  /// Window size of the last batch.
  package private(set) var granularity = 1
  private var wanted: Int?
  package private(set) var groups = RowGroups()

  /// - Throws: `invalidArgument` for a window below one, or none at all.
  public init(_ choice: Choice, isShifted: Bool = false, name: String = "pooling") throws(CrosspointError) {
    self.name = name
    self.choice = choice
    self.isShifted = isShifted
    granularities =
      switch choice {
      case .fixed(let window): [window]
      case .sampled(let windows, _): windows
      }
    guard !granularities.isEmpty else { throw invalid("granularities", "none are given") }
    for window in granularities where window < 1 {
      throw invalid("granularities", "a window of \(window) rows; it must be at least one")
    }
  }

  public var isCausal: Bool { isShifted || granularities.allSatisfy { $0 == 1 } }

  public var configuration: String {
    let windows = granularities.map(String.init).joined(separator: "+")
    let draw = if case .sampled(_, let seed) = choice { ",seed=\(seed)" } else { "" }
    return "\(name):windows=\(windows)\(draw)\(isShifted ? ",shifted" : "")"
  }

  /// Uses one of the granularities for all batches that follow, in training and evaluation: for every scale in each step,
  /// or to evaluate at each. `nil` goes back to its choice.
  /// - Throws: `invalidArgument` for any other window.
  public func use(granularity: Int?) throws(CrosspointError) {
    if let granularity, !granularities.contains(granularity) {
      throw invalid("granularity", "\(granularity) is not among \(granularities)")
    }
    wanted = granularity
  }

  public func reduce(
    _ tokens: borrowing TokenBatch, _ layout: RowLayout, _ context: StageContext
  ) throws(CrosspointError) -> TokenRows {
    let longest = layout.tokensPerSequence.max() ?? 0
    for window in granularities where longest > 0 && window > longest {
      throw invalid(
        "granularities", "a window of \(window) rows is longer than any sequence; the longest has \(longest)")
    }
    granularity = wanted ?? draw(context)
    groups.begin(layout)
    var token = 0
    for (sequence, rows) in layout.rowsPerSequence.enumerated() {
      var previous: Int32 = -1
      for start in stride(from: 0, to: rows, by: granularity) {
        let window = token..<token + min(granularity, rows - start)
        let isLive = window.contains { layout.tokensPerRow[$0] > 0 }
        let row = isLive ? groups.addRow(sequence: sequence) : -1
        for member in window {
          let weight = layout.tokensPerRow[member]
          let source = weight == 0 ? -1 : isShifted ? previous : row
          groups.addMember(of: weight == 0 ? -1 : row, tokens: weight, source: source)
        }
        if isLive { previous = row }
        token = window.upperBound
      }
    }
    // What a row stands for may include later tokens: a causal mean must not see it.
    groups.finishMeans(weights: isShifted ? nil : layout.tokensPerRow)
    return try groups.reduce(tokens)
  }

  private func draw(_ context: StageContext) -> Int {
    guard case .sampled(let windows, let seed) = choice, context.isTraining else { return granularities[0] }
    var generator = context.sharedGenerator(seed: seed)
    return windows[Int(generator.next() % UInt64(windows.count))]
  }
}
