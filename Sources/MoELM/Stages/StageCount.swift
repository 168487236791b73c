import Crosspoint

/// What one stage let through, summed over layers and ranks.
public struct StageCount: Codable, Sendable, Equatable {
  /// Of all layers: the stage's name, or `experts after the first` for what trims take from the routing.
  public var name: String
  /// Tokens that the rows which came in stand for.
  public var tokensIn = 0.0
  public var rowsIn = 0.0
  public var rowsOut = 0.0

  /// What trims are counted under.
  static let furtherExperts = "experts after the first"

  /// Rows out per row in; 1 where none came in.
  public var fraction: Double { rowsIn == 0 ? 1 : rowsOut / rowsIn }

  init(name: String) { self.name = name }

  init(_ statistics: StageStatistics) {
    name = statistics.name
    tokensIn = Double(statistics.tokensIn)
    rowsIn = Double(statistics.rowsIn)
    rowsOut = Double(statistics.rowsOut)
  }

  /// As numbers, for a sum over ranks.
  var values: [Double] { [tokensIn, rowsIn, rowsOut] }

  /// The same stage with other numbers.
  func with(_ values: [Double]) -> StageCount {
    var count = self
    (count.tokensIn, count.rowsIn, count.rowsOut) = (values[0], values[1], values[2])
    return count
  }

  static func + (a: StageCount, b: StageCount) -> StageCount { a.with(zip(a.values, b.values).map(+)) }
}

extension [StageCount] {
  /// Share of the experts after the first that trims left, if there are any trims.
  var keptFurtherExperts: Double? { first { $0.name == StageCount.furtherExperts }?.fraction }

  /// Share of the rows that the deletion left out, if there is one.
  var deletionRate: Double? { first { $0.name == "deletion" }.map { 1 - $0.fraction } }
}
