/// How alike two routings choose: the mean over tokens of `|A ∩ B| / |A ∪ B|`, A and B the experts that each sends the token
/// to (Jaccard index). For granularities that share a router, whose rows stand for different tokens, and for routers.
package struct SelectionOverlap: Sendable, Hashable {
  /// Σ of the index.
  package private(set) var sum = 0.0
  /// Tokens compared; those that neither sends anywhere are not.
  package private(set) var tokens = 0

  package init() {}

  /// The mean, 1 when nothing was compared.
  package var mean: Double { tokens == 0 ? 1 : sum / Double(tokens) }

  /// Compares two routings of the same tokens.
  /// - Parameters:
  ///   - rowsOfA: `[T]`: the row of `a` that stands for each token, −1 for none; `nil`: row t for token t.
  ///   - rowsOfB: likewise.
  package mutating func add(_ a: Routing, _ rowsOfA: [Int32]? = nil, _ b: Routing, _ rowsOfB: [Int32]? = nil) {
    let count = rowsOfA?.count ?? a.tokens
    precondition(count == rowsOfB?.count ?? b.tokens, "routings of \(count) and another number of tokens")
    for token in 0..<count {
      let (rowA, rowB) = (Int(rowsOfA?[token] ?? Int32(token)), Int(rowsOfB?[token] ?? Int32(token)))
      let (setA, setB) = (a.experts(ofRow: rowA), b.experts(ofRow: rowB))
      var (both, either) = (0, 0)
      for expert in setA where expert >= 0 {
        either += 1
        if setB.contains(expert) { both += 1 }
      }
      for expert in setB where expert >= 0 && !setA.contains(expert) { either += 1 }
      guard either > 0 else { continue }
      sum += Double(both) / Double(either)
      tokens += 1
    }
  }

  /// Adds another layer's or rank's.
  package static func += (sum: inout SelectionOverlap, other: SelectionOverlap) {
    sum.sum += other.sum
    sum.tokens += other.tokens
  }
}

extension Routing {
  /// Entries of a row, −1 where nothing is sent; none for row −1.
  fileprivate func experts(ofRow row: Int) -> ArraySlice<Int32> {
    row < 0 ? [] : topkIndices[row * topK..<(row + 1) * topK]
  }
}
