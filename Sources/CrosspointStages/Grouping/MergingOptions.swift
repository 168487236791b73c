/// Which rows ``TokenMerging`` merges.
public struct MergingOptions: Sendable, Hashable {
  /// How alike rows must be.
  public enum Threshold: Sendable, Hashable {
    /// Cosine of at least this.
    case given(Double)
    /// A running quantile: once per step `τ ← τ + gain · (r̂ − rate)`, r̂ the share of rows that all ranks merged away. It
    /// settles where a share `rate` is merged away.
    case learned(rate: Double, start: Double = 0.9, gain: Double = 0.1)
  }

  package var threshold: Threshold
  package var window: Int
  package var isCausal: Bool

  /// - Parameters:
  ///   - threshold: how alike rows must be.
  ///   - window: a row is compared with the representatives at most this many rows before it.
  ///   - isCausal: whether a merged row is its first member alone instead of the mean of all.
  public init(threshold: Threshold, window: Int = 16, isCausal: Bool) {
    self.threshold = threshold
    self.window = window
    self.isCausal = isCausal
  }
}

extension MergingOptions {
  /// What makes it another stage if changed.
  var text: String {
    let text =
      switch threshold {
      case .given(let value): "threshold=\(value)"
      case .learned(let rate, let start, let gain): "rate=\(rate),start=\(start),gain=\(gain)"
      }
    return "\(text),window=\(window),\(isCausal ? "causal" : "mean")"
  }
}
