import Crosspoint

/// How alike one layer's router chooses at two granularities: the Jaccard index of the experts of each token.
package struct Overlap: Codable, Sendable, Equatable {
  package var block: Int
  /// The granularity that is held against the first one.
  package var granularity: Int
  /// Tokens compared, and the sum of the index over them.
  package var tokens = 0.0
  package var sum = 0.0

  /// The mean; 1 where nothing was compared.
  package var mean: Double { tokens == 0 ? 1 : sum / tokens }

  init(block: Int, granularity: Int) {
    self.block = block
    self.granularity = granularity
  }

  mutating func add(_ overlap: SelectionOverlap) {
    tokens += Double(overlap.tokens)
    sum += overlap.sum
  }

  mutating func reset() { (tokens, sum) = (0, 0) }

  mutating func forEachNumber(_ body: (inout Double) -> Void) {
    body(&tokens)
    body(&sum)
  }
}

extension [Overlap] {
  /// The mean over all layers and granularities; `nil` where nothing was compared.
  var mean: Double? {
    let tokens = reduce(0) { $0 + $1.tokens }
    return tokens == 0 ? nil : reduce(0) { $0 + $1.sum } / tokens
  }
}
