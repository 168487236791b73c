/// Rows that are hard to code, each a claim's worth: `[rows, hidden]`, row by row.
struct HostileRows: CustomStringConvertible, Sendable {
  let description: String
  let hidden: Int
  let values: [Float]

  var rows: Int { values.count / hidden }

  static let widths = [1, 2, 3, 4, 5, 6, 7, 8, 33, 128]
  /// The largest is near ``WireFormat/bound``.
  static let sizes: [Float] = [1, 1e2, 1e3, 1e6, 1e12, 1e20, 1e30, 0x1p110]

  /// Standard normal values, changed one by one; row and column are given.
  private init(
    _ description: String, rows: Int = 64, hidden: Int,
    _ change: (Float, _ row: Int, _ column: Int) -> Float = { x, _, _ in x }
  ) {
    self.description = "\(description), [\(rows), \(hidden)]"
    self.hidden = hidden
    let normal = normalFloats(rows * hidden, seed: UInt64(1000 + hidden))
    values = normal.indices.map { change(normal[$0], $0 / hidden, $0 % hidden) }
  }

  /// Whether all elements are of one size.
  var isPlain: Bool { ["ordinary", "around 5", "tiny"].contains { description.hasPrefix($0) } }

  /// Every case of a width. Of wide rows, an odd width takes every second size, an even one the others.
  static func cases(hidden: Int) -> [HostileRows] {
    var all = [
      HostileRows("ordinary", hidden: hidden),
      HostileRows("around 5", hidden: hidden) { x, _, _ in x + 5 },
      HostileRows("one row", rows: 1, hidden: hidden),
      HostileRows("zeros", hidden: hidden) { _, _, _ in 0 },
      HostileRows("every other row of zeros", hidden: hidden) { x, row, _ in row % 2 == 0 ? 0 : x },
      HostileRows("a column of zeros", hidden: hidden) { x, _, column in column == 0 ? 0 : x },
      HostileRows("a denormal column", hidden: hidden) { x, _, column in column == 1 ? x * 0x1p-140 : x },
      HostileRows("tiny", hidden: hidden) { x, _, _ in x * 1e-30 },
      HostileRows("one row of 1e-30", hidden: hidden) { x, row, _ in row == 3 ? x * 1e-30 : x },
    ]
    let row = normalFloats(hidden, seed: 17)
    for (index, size) in (sizes + [1e-30]).enumerated() where hidden < 33 || index % 2 == hidden % 2 {
      all += [
        HostileRows("one column times \(size)", hidden: hidden) { x, _, column in column == 0 ? x * size : x },
        HostileRows("every third column times \(size)", hidden: hidden) { x, _, column in column % 3 == 0 ? x * size : x
        },
        HostileRows("one row times \(size)", hidden: hidden) { x, row, _ in row == 3 ? x * size : x },
        HostileRows("one element of \(size)", hidden: hidden) { x, row, column in row == 3 && column == 0 ? size : x },
        HostileRows("a column of \(size)", hidden: hidden) { x, _, column in column == 0 ? size : x },
        HostileRows("equal rows of about \(size)", hidden: hidden) { _, _, column in row[column] * size },
      ]
    }
    return all
  }

  /// Rows with values of a size, none below half of it where they have it.
  static func large(hidden: Int, size: Float) -> [HostileRows] {
    func large(_ x: Float) -> Float { (x < 0 ? -1 : 1) * size * (0.5 + min(0.5, abs(x) / 4)) }
    return [
      HostileRows("one column of \(size)", hidden: hidden) { x, _, column in column == 0 ? large(x) : x },
      HostileRows("one row of \(size)", hidden: hidden) { x, row, _ in row == 3 ? large(x) : x },
      HostileRows("one element of \(size)", hidden: hidden) { x, row, column in
        row == 3 && column == hidden - 1 ? -size : x
      },
      HostileRows("all of \(size)", hidden: hidden) { x, _, _ in large(x) },
    ]
  }

  /// Whether the energy is that of many different values: (Σx²)² / Σx⁴ says of how many.
  var energyIsSpread: Bool {
    let most = Double(values.reduce(0) { max($0, abs($1)) })
    guard most > 0, Set(values).count > values.count / 4 else { return false }
    let squares = values.map { (Double($0) / most) * (Double($0) / most) }
    let (sum, fourth) = squares.reduce((0, 0)) { ($0.0 + $1, $0.1 + $1 * $1) }
    return sum * sum / fourth > 20
  }

  /// Whether the energy of every row that has any is that of more than six elements.
  var everyRowIsSpread: Bool {
    stride(from: 0, to: values.count, by: hidden).allSatisfy { start in
      let row = values[start..<start + hidden]
      let most = Double(row.reduce(0) { max($0, abs($1)) })
      guard most > 0 else { return true }
      let squares = row.map { (Double($0) / most) * (Double($0) / most) }
      let (sum, fourth) = squares.reduce((0, 0)) { ($0.0 + $1, $0.1 + $1 * $1) }
      return sum * sum / fourth > 6
    }
  }
}
