import Foundation
import Testing

/// A scenario on a number of ranks, as the rank program lists them.
struct LaunchCase: Sendable, CustomTestStringConvertible {
  let scenario: String
  let ranks: Int

  var testDescription: String { "\(scenario) on \(ranks)" }

  /// All cases that end in a way; none if the rank program is missing, which a test of its own reports.
  static func all(ending end: String) -> [LaunchCase] {
    ((try? list()) ?? []).filter { $0.end == end }.flatMap { line in
      line.ranks.map { LaunchCase(scenario: line.scenario, ranks: $0) }
    }
  }

  /// The lines of `RankProgram --list`: name, rank counts, end.
  static func list() throws -> [(scenario: String, ranks: [Int], end: String)] {
    let outcome = try RankProgram.run(RankProgram.executable(), ["--list"], seconds: 20)
    return outcome.lines.compactMap { line in
      let fields = line.split(separator: "\t")
      guard fields.count == 3 else { return nil }
      return (String(fields[0]), fields[1].split(separator: ",").compactMap { Int($0) }, String(fields[2]))
    }
  }
}
