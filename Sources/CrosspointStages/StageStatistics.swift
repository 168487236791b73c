/// What one stage let through since the last ``reset()``; this rank's share. Padding is not counted.
public struct StageStatistics: Sendable, Hashable {
  /// The stage's name.
  public let name: String
  /// Rows that came in and are no padding.
  public var rowsIn = 0
  /// Tokens that those rows stand for.
  public var tokensIn = 0
  /// Rows that went on.
  public var rowsOut = 0

  init(name: String) { self.name = name }

  /// Rows out per row in, 1 when nothing came in.
  public var fraction: Double { rowsIn == 0 ? 1 : Double(rowsOut) / Double(rowsIn) }

  /// Forgets everything so far.
  public mutating func reset() { self = StageStatistics(name: name) }

  /// Adds another layer's or another rank's counters of the same stage.
  package static func += (sum: inout StageStatistics, other: StageStatistics) {
    sum.rowsIn += other.rowsIn
    sum.tokensIn += other.tokensIn
    sum.rowsOut += other.rowsOut
  }

  mutating func count(_ before: RowLayout, _ after: RowLayout) {
    for tokens in before.tokensPerRow where tokens > 0 {
      rowsIn += 1
      tokensIn += Int(tokens)
    }
    rowsOut += after.rows
  }
}
