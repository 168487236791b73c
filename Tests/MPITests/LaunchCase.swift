import LaunchSupport
import Testing

/// A scenario on a number of ranks, as the rank program lists them.
struct LaunchCase: Sendable, Hashable, CustomTestStringConvertible {
  let scenario: String
  let ranks: Int

  var testDescription: String { "\(scenario) on \(ranks)" }

  /// A line of `RankProgram --list`.
  struct Line {
    let scenario: String
    let ranks: [Int]
    let end: String
    /// Whether the rank program can run it as it was built.
    let runs: Bool
  }

  /// All cases that end in a way; none if the rank program is missing, which a test of its own reports.
  static func all(ending end: String) -> [LaunchCase] {
    ((try? list()) ?? []).filter { $0.end == end && $0.runs }.flatMap { line in
      line.ranks.map { LaunchCase(scenario: line.scenario, ranks: $0) }
    }
  }

  static func list() throws -> [Line] {
    let outcome = try RankProgram.run(["--list"])
    return try outcome.lines.map { line in
      let fields = line.split(separator: "\t").map(String.init)
      guard fields.count == 4 else {
        throw LaunchFailure("not a line of RankProgram --list: \(line)")
      }
      let ranks = fields[1].split(separator: ",").compactMap { Int($0) }
      return Line(scenario: fields[0], ranks: ranks, end: fields[2], runs: fields[3] == "runs")
    }
  }
}
