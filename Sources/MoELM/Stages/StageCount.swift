import Crosspoint

/// What one stage let through, summed over layers and ranks.
package struct StageCount: Codable, Sendable, Equatable {
  /// Of all layers: the stage's name, or `experts after the first` for what trims take from the routing.
  package var name: String
  /// Tokens that the rows which came in stand for.
  package var tokensIn = 0.0
  package var rowsIn = 0.0
  package var rowsOut = 0.0

  /// What trims are counted under.
  static let furtherExperts = "experts after the first"

  /// Rows out per row in; 1 where none came in.
  package var fraction: Double { rowsIn == 0 ? 1 : rowsOut / rowsIn }

  init(name: String) { self.name = name }

  init(_ statistics: StageStatistics) {
    name = statistics.name
    tokensIn = Double(statistics.tokensIn)
    rowsIn = Double(statistics.rowsIn)
    rowsOut = Double(statistics.rowsOut)
  }

  mutating func forEachNumber(_ body: (inout Double) -> Void) {
    body(&tokensIn)
    body(&rowsIn)
    body(&rowsOut)
  }

  mutating func reset() { (tokensIn, rowsIn, rowsOut) = (0, 0, 0) }

  static func += (sum: inout StageCount, other: StageCount) {
    sum.tokensIn += other.tokensIn
    sum.rowsIn += other.rowsIn
    sum.rowsOut += other.rowsOut
  }
}

extension [StageCount] {
  /// Share of the experts after the first that trims left, if there are any trims.
  var keptFurtherExperts: Double? { first { $0.name == StageCount.furtherExperts }?.fraction }

  /// Share of the rows that the deletion left out, if there is one.
  var deletionRate: Double? { first { $0.name == "deletion" }.map { 1 - $0.fraction } }
}
