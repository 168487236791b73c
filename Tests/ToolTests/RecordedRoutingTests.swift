import Foundation
import LaunchSupport
import Testing

/// What a training run chose, written down and repeated by a benchmark.
@Suite(.serialized)
struct RecordedRoutingTests {
  @Test(arguments: [false, true]) func whatTrainingChoseIsBenchedOnAsManyRanks(mpi: Bool) throws {
    try TinyRun.use { run in
      let record = run.path("R.npy")
      let train = run.train(steps: 3) + ["--record-routing", record, "--prune", "0.9"]
      let trained =
        mpi ? try Tool.moeLM.run(ranks: 2, train) : try Tool.moeLM.run(train + ["--ranks-simulated", "2"])
      #expect(trained.exitCode == 0, "\(trained)")
      let bytes = try Data(contentsOf: URL(fileURLWithPath: record))
      // Three steps, two ranks, one layer with experts, half of 8 sequences of 16 tokens, top-2.
      #expect(String(decoding: bytes.prefix(128), as: UTF8.self).contains("'shape': (3, 2, 1, 64, 2,)"))
      #expect(bytes.count == 128 + 4 * 3 * 2 * 64 * 2)

      let json = run.path("b.json")
      let bench = [
        "bench", "exchange", "--routing", record, "--experts", "4", "--hidden", "8", "--iterations", "5", "--warmup",
        "2",
        "--json", json,
      ]
      let outcome = mpi ? try Tool.xpoint.run(ranks: 2, bench) : try Tool.xpoint.run(bench + ["--simulated", "2"])
      #expect(outcome.exitCode == 0 && outcome.output.contains("pattern recorded"), "\(outcome)")
      let records = try #require(
        try JSONSerialization.jsonObject(with: Data(contentsOf: URL(fileURLWithPath: json))) as? [[String: Any]])
      #expect(records[0]["pattern"] as? String == "recorded")
      #expect(records[0]["tokensPerRank"] as? Int == 64 && records[0]["topK"] as? Int == 2)
    }
  }

  @Test func aRecordIsTheSameWhicheverWayRanksAreRun() throws {
    try TinyRun.use { run in
      let files = try (0..<2).map { number in
        let path = run.path("\(number).npy")
        let train = run.train(steps: 4) + ["--record-routing", path]
        let outcome =
          number == 0 ? try Tool.moeLM.run(ranks: 3, train) : try Tool.moeLM.run(train + ["--ranks-simulated", "3"])
        #expect(outcome.exitCode == 0, "\(outcome)")
        return try Data(contentsOf: URL(fileURLWithPath: path))
      }
      #expect(files[0] == files[1] && files[0].count == 128 + 4 * 4 * 3 * 48 * 2)
    }
  }

  @Test func recordsThatCannotBeRepeatedAreRefusedInOneLine() throws {
    try TinyRun.use { run in
      func npy(_ shape: String, _ values: [Int32]) throws -> String {
        var text = "{'descr': '<i4', 'fortran_order': False, 'shape': \(shape)}"
        text += String(repeating: " ", count: 117 - text.utf8.count) + "\n"
        var data = Data([0x93] + Array("NUMPY".utf8) + [1, 0, 118, 0] + Array(text.utf8))
        for value in values { withUnsafeBytes(of: value.littleEndian) { data.append(contentsOf: $0) } }
        let path = run.path("bad.npy")
        try data.write(to: URL(fileURLWithPath: path))
        return path
      }
      for (shape, values, words) in [
        ("(4,)", [0, 1, 2, 3], "[steps, ranks, layers, rows, topK] expected"),
        ("(1, 2, 1, 1, 2)", [0, 1, 2, 16], "names expert 16"), ("(1, 2, 1, 1, 2)", [0, 1, 2, -2], "names expert -2"),
        ("(1, 2, 0, 1, 2)", [], "holds no routing"),
        ("(1152921504606846976, 0, 1152921504606846976, 1, 1)", [], "holds no routing"),
        ("(1, 2, 1, 1, 2)", [0, 1, 2], "truncated"),
        ("(1, 1, 1, 1, 1)", [0], "recorded on 1 ranks, here are 2"),
        ("(1, 1, 1, 1, 17)", Array(0..<17), "17 choices of 16 experts"),
      ] as [(String, [Int32], String)] {
        let outcome = try Tool.xpoint.run(
          ["bench", "exchange", "--simulated", "2", "--hidden", "8", "--iterations", "1", "--routing"]
            + [npy(shape, values)])
        let lines = outcome.errorLines(of: "xpoint")
        #expect(outcome.exitCode != 0 && lines.count == 1, "\(shape): \(outcome)")
        #expect(lines.first?.contains(words) == true, "\(shape): \(outcome)")
      }
      let refused = try Tool.moeLM.run(
        run.train() + ["--record-routing", run.path("no/such/folder.npy"), "--ranks-simulated", "2"])
      #expect(refused.exitCode == 1 && refused.errorLines(of: "moe-lm").count == 1, "\(refused)")
      #expect(refused.errors.contains("record-routing"), "\(refused)")
      let endless = try Tool.moeLM.run(
        run.train(steps: 1 << 60) + ["--record-routing", run.path("R.npy"), "--ranks-simulated", "2"])
      #expect(endless.exitCode == 1 && endless.errorLines(of: "moe-lm").count == 1, "\(endless)")
      #expect(endless.errors.contains("record-routing"), "\(endless)")
    }
  }
}
