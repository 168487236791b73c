/// The rows that a mean is taken of where it need not be that of all: at most 256 evenly spaced ones. The mean of m rows
/// leaves 1/m more energy than that of all, and rows that are read again come from memory.
struct MeanSample {
  private static let most = 256

  /// The rows' numbers.
  let indices: StrideTo<Int>
  /// How many there are.
  let count: Int

  init(of rows: Int) {
    let spacing = (rows + Self.most - 1) / Self.most
    count = (rows + spacing - 1) / spacing
    indices = stride(from: 0, to: rows, by: spacing)
  }

  /// Whether a mean is that of its rows, and not of a few that are far longer than the rest, which would get an error in
  /// proportion to these: at most one row in eight may be shorter than half of it.
  static func isCommon(shorterRows: Int, of rows: Int) -> Bool { 8 * shorterRows <= rows }
}
