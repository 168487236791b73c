import ArgumentParser

/// What the model learns to predict.
package enum Objective: String, Sendable, CaseIterable, ExpressibleByArgument {
  /// Each next byte, from the bytes before it.
  case causal
  /// Bytes that are hidden behind a mask symbol, from all others of the sequence (Devlin et al., arXiv 1810.04805,
  /// section 3.1, with every chosen byte masked). Attention sees both directions.
  case masked
}

extension ModelShape {
  /// Rows of the embedding: the bytes, then the mask symbol where there is one.
  var symbols: Int { Self.vocabulary + (objective == .masked ? 1 : 0) }

  /// Predictions that the loss counts in each sequence: all bytes, or those masked, at least one.
  var predictionsPerSequence: Int {
    objective == .masked ? max(1, Int((Double(maskFraction) * Double(context)).rounded())) : context
  }
}
