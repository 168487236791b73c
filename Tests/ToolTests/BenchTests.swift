import Foundation
import LaunchSupport
import Testing

/// Benchmarks compare what both sides bring, and write it down.
struct BenchTests {
  /// Bodies are larger than 64 KiB, so that they travel behind their announcements.
  @Test(arguments: [0, 2, 3], ["uniform", "W0", "W1", "W2", "W3", "W4", "W5", "W6", "W7", "zipf"])
  func aLayerInWavesGivesTheSameBits(mpiRanks: Int, pattern: String) throws {
    // Under MPI those whose ranks differ most.
    guard mpiRanks == 0 || ["W2", "W4", "W5"].contains(pattern) else { return }
    for copies in ["expert", "rank"] {
      let bench = [
        "bench", "waves", "--tokens", "600", "--hidden", "64", "--row-time", "0.5", "--iterations", "2", "--warmup",
        "1",
        "--pattern", pattern, "--copies", copies,
      ]
      let outcome =
        mpiRanks == 0 ? try Tool.xpoint.run(bench + ["--simulated", "4"]) : try Tool.xpoint.run(ranks: mpiRanks, bench)
      #expect(outcome.exitCode == 0 && outcome.output.contains("waves"), "\(outcome)")
    }
  }

  @Test(arguments: [0, 2], ["plain", "allgather"])
  func gradientsAreTheSameAndOnRecord(mpiRanks: Int, baseline: String) throws {
    try TinyRun.use { run in
      let (csv, json) = (run.path("out.csv"), run.path("out.json"))
      let bench =
        ["bench", "exchange", "--backward", "--tokens", "32", "--hidden", "48", "--iterations", "3", "--warmup", "1"]
        + ["--baseline", baseline, "--csv", csv, "--json", json]
      let outcome =
        mpiRanks == 0 ? try Tool.xpoint.run(bench + ["--simulated", "3"]) : try Tool.xpoint.run(ranks: mpiRanks, bench)
      #expect(outcome.exitCode == 0, "\(outcome)")
      let lines = try String(contentsOfFile: csv, encoding: .utf8).split(separator: "\n").map {
        $0.split(separator: ",")
      }
      #expect(lines[0].first == "op" && lines[0].last == "maxRatio")
      let ops = ["dispatch", "combine", "combineBackward", "dispatchBackward", "exchange"]
      #expect(
        lines.dropFirst().map { $0[0...1].joined(separator: " ") }
          == ops.flatMap { ["\($0) crosspoint", "\($0) \(baseline)"] })
      let records = try #require(
        try JSONSerialization.jsonObject(with: Data(contentsOf: URL(fileURLWithPath: json))) as? [[String: Any]])
      for (record, line) in zip(records, lines.dropFirst()) {
        let isOurs = record["implementation"] as? String == "crosspoint"
        #expect((record["medianRatio"] != nil) == isOurs && line.count == (isOurs ? 17 : 14))
        let seconds = ["min", "median", "p95", "p99", "p999"].map { record["\($0)Seconds"] as? Double ?? .nan }
        #expect(seconds == seconds.sorted() && seconds[0] > 0, "\(seconds)")
      }
    }
  }
}
