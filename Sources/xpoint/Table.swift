/// Columns of text, right-aligned and as wide as their widest cell; a header line begins with `#`.
struct Table {
  private var lines: [[String]]

  init(columns: [String]) { lines = [columns] }

  mutating func append(_ cells: [String]) {
    precondition(cells.count == lines[0].count, "\(cells.count) cells for \(lines[0].count) columns")
    lines.append(cells)
  }

  var text: String {
    let widths = lines[0].indices.map { column in lines.map { $0[column].count }.max() ?? 0 }
    return lines.enumerated().map { index, cells in
      let row = zip(cells, widths).map { String(repeating: " ", count: $1 - $0.count) + $0 }
      return (index == 0 ? "# " : "  ") + row.joined(separator: "  ")
    }.joined(separator: "\n")
  }
}

extension Double {
  /// `digits` places after the point.
  func fixed(_ digits: Int) -> String {
    guard isFinite, magnitude < 1e15 else { return "\(self)" }
    var scale = 1.0
    for _ in 0..<digits { scale *= 10 }
    let whole = Int64((magnitude * scale).rounded())
    let text = String(whole)
    let padded = String(repeating: "0", count: max(0, digits + 1 - text.count)) + text
    let sign = self < 0 && whole != 0 ? "-" : ""
    guard digits > 0 else { return sign + padded }
    return sign + padded.dropLast(digits) + "." + padded.suffix(digits)
  }

  var microseconds: String { (self * 1e6).fixed(1) }
  /// Bytes per second as GB/s.
  var gigabytes: String { (self / 1e9).fixed(3) }
}
