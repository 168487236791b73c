import ArgumentParser
import CrosspointCore
import CrosspointFiles

/// What a benchmark measured of one operation of one implementation.
struct BenchRecord: Encodable {
  var op: String
  /// `crosspoint`, `plain`, …
  var implementation: String
  var ranks: Int
  var tokensPerRank: Int
  var hidden: Int
  var topK: Int
  var pattern: String
  /// Bytes that leave the rank which sends most, in one operation.
  var bytes: Int
  var minSeconds: Double
  var medianSeconds: Double
  var p95Seconds: Double
  var p99Seconds: Double
  var p999Seconds: Double
  /// The rank that was last most often.
  var slowestRank: Int
  /// Time over that of `plain`, run by run, where both took turns.
  var minRatio: Double?
  var medianRatio: Double?
  var maxRatio: Double?

  init(
    op: String, implementation: String, ranks: Int = 1, tokensPerRank: Int, hidden: Int, topK: Int = 1, pattern: String,
    bytes: Int = 0, seconds: Samples, slowestRank: Int = 0, ratio: Samples? = nil
  ) {
    (self.op, self.implementation, self.ranks) = (op, implementation, ranks)
    (self.tokensPerRank, self.hidden, self.topK, self.pattern) = (tokensPerRank, hidden, topK, pattern)
    (self.bytes, self.slowestRank) = (bytes, slowestRank)
    (minSeconds, medianSeconds) = (seconds.minimum, seconds.median)
    (p95Seconds, p99Seconds) = (seconds.percentile(95), seconds.percentile(99))
    p999Seconds = seconds.percentile(99.9)
    (minRatio, medianRatio, maxRatio) = (ratio?.minimum, ratio?.median, ratio?.maximum)
  }

  /// Of the CSV file, in this order.
  private var columns: KeyValuePairs<String, String> {
    [
      "op": op, "implementation": implementation, "ranks": "\(ranks)", "tokensPerRank": "\(tokensPerRank)",
      "hidden": "\(hidden)", "topK": "\(topK)", "pattern": "\"\(pattern)\"", "bytes": "\(bytes)",
      "minSeconds": "\(minSeconds)", "medianSeconds": "\(medianSeconds)", "p95Seconds": "\(p95Seconds)",
      "p99Seconds": "\(p99Seconds)", "p999Seconds": "\(p999Seconds)", "slowestRank": "\(slowestRank)",
      "minRatio": minRatio.map { "\($0)" } ?? "", "medianRatio": medianRatio.map { "\($0)" } ?? "",
      "maxRatio": maxRatio.map { "\($0)" } ?? "",
    ]
  }

  /// - Parameter records: at least one.
  static func csv(_ records: [BenchRecord]) -> String {
    let lines = [records[0].columns.map(\.key)] + records.map { $0.columns.map(\.value) }
    return lines.map { $0.joined(separator: ",") + "\n" }.joined()
  }
}

/// Where a benchmark's records go.
struct RecordArguments: ParsableArguments {
  @Option(help: ArgumentHelp("Where the records go.", valueName: "file"))
  var json: String?
  @Option(help: ArgumentHelp("The same as comma-separated values.", valueName: "file"))
  var csv: String?

  func write(_ records: [BenchRecord]) throws(CrosspointError) {
    if let json { try writeJSON(records, to: json, argument: "--json") }
    if let csv { try writeFile(csv, Array(BenchRecord.csv(records).utf8), argument: "--csv") }
  }
}
