import CrosspointCore

/// What a token is known by: its byte and the one before, if they are a frequent pair of the text, else its byte.
struct TokenLabels {
  /// Pairs that make up at least one in so many of the text's.
  private static let frequent = 1024

  /// `[257 · 257]` by the symbols of the pair: the label.
  private let labels: [Int32]
  private static let symbols = ModelShape.vocabulary + 1

  init(_ text: [UInt8]) {
    var counts = [Int](repeating: 0, count: Self.symbols * Self.symbols)
    for (first, second) in zip(text, text.dropFirst()) { counts[Int(first) * Self.symbols + Int(second)] += 1 }
    labels = counts.indices.map { pair in
      Int32(counts[pair] * Self.frequent >= text.count ? Self.symbols + pair : pair % Self.symbols)
    }
  }

  /// Of a batch's whole sequences, whose first tokens have none before them.
  func of(_ batch: Batch, context: Int) -> [Int32] {
    (0..<batch.rows).map { row in
      let symbol = batch.symbol(row)
      return row.isMultiple(of: context) ? Int32(symbol) : labels[batch.symbol(row - 1) * Self.symbols + symbol]
    }
  }
}
