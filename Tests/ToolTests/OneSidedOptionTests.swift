import Foundation
import LaunchSupport
import Testing

/// Every option of `moe-lm train` and `moe-lm eval`, as the tool's own parser lists them, given on one rank only.
///
/// Under MPI: simulated ranks are threads of one process, which reads one command line once, so that no option can be
/// one-sided there. By default a sample on four ranks, and of those options of `eval` that `train` has too; all of them where
/// repeats are asked for.
@Suite(.serialized)
struct OneSidedOptionTests {
  /// What the rank is given where another number is none or makes no sense.
  fileprivate static let values = [
    "data": "other.txt", "summary": "other.json", "metrics": "other.jsonl", "checkpoint": "other.ckpt",
    "ranks-simulated": "2", "deadline": "6", "objective": "masked", "deletion": "random", "deletion-form": "attention",
    "deletion-scope": "layer", "granularities": "1,2", "granularity-schedule": "sampled", "merge": "0.9",
    "prune": "auto", "second-expert": "random", "groups-per-token": "1.5", "compression": "lsh", "copies": "rank",
    "compensation": "none", "wire": "bf16", "wire-dispatch": "bf16", "wire-combine": "bf16", "wire-gradient": "bf16",
    "wire-combine-backward": "bf16", "wire-dispatch-backward": "bf16",
    "within-node": "plain", "agreement": "deferred", "latent": "8", "record-routing": "other.npy",
    "trace": "other.json",
    "budget-bytes": "0.5", "budget-error": "0.1", "memory": "3", "seed": "1", "fastest": "0.1",
    "tuning": "/nowhere.json",
    "deletion-threshold": "0.25", "granularity": "2", "router-groups": "2", "link-speed": "100", "transport": "plain",
  ]

  /// Options that may differ: files are rank 0's, and how long a rank waits is its own affair.
  private static let free = [
    "train": ["data", "summary", "metrics", "deadline"], "eval": ["data", "summary", "checkpoint", "deadline"],
  ]

  @Test(arguments: ["train", "eval"], [2, 4])
  func whatDiffersOnOneRankIsNamedByItsOptionAndRank(command: String, ranks: Int) throws {
    let stride = Repeats.asked != nil || (ranks == 2 && command == "train") ? 1 : 8
    try TinyRun.use { run in
      let checkpoint = run.path("run.ckpt")
      var arguments = run.train()
      if command == "eval" {
        let trained = try Tool.moeLM.run(arguments + ["--checkpoint", checkpoint])
        #expect(trained.exitCode == 0, "\(trained)")
        arguments = [
          "eval", "--checkpoint", checkpoint, "--data", run.path("text.txt"), "--batch", "8", "--eval-windows", "8",
          "--deadline", "5",
        ]
      }
      let options = try Option.all(of: .moeLM, [command])
      #expect(options.count > 20)
      let others = command == "train" ? [] : try Option.all(of: .moeLM, ["train"]).map(\.name)
      for (index, option) in options.enumerated()
      where index.isMultiple(of: stride) || (command == "eval" && !others.contains(option.name)) {
        let odd = try #require(option.other(in: run), "say in this test what else --\(option.name) may be")
        // One rank has it; the last of an option that is given twice holds.
        let rank = 1 + index % (ranks - 1)
        let outcome = try Tool.moeLM.run(ranks: ranks, arguments, onRank: rank, odd)
        #expect(outcome.left.isEmpty && outcome.seconds < 20, "\(outcome)")
        let lines = outcome.errorLines(of: "moe-lm")
        if Self.free[command]!.contains(option.name) {
          #expect(outcome.exitCode == 0 && lines.isEmpty, "--\(option.name): \(outcome)")
          continue
        }
        #expect(outcome.exitCode != 0 && lines.count == 1, "--\(option.name): \(outcome)")
        #expect(lines.first?.hasPrefix("moe-lm: rank \(rank): ") == true, "--\(option.name): \(outcome)")
        let words = option.name.hasPrefix("wire") ? "wire" : option.name.replacing("-", with: " ")
        let line = lines.first?.replacing("-", with: " ") ?? ""
        #expect(line.contains(words) || line.contains(option.synonym), "--\(option.name): \(outcome)")
      }
    }
  }
}

extension Option {
  /// Another value than the default, as arguments; `nil` if none is known.
  fileprivate func other(in run: TinyRun) -> [String]? {
    if isFlag { return ["--" + name] }
    if let value = OneSidedOptionTests.values[name] {
      return ["--" + name, value.hasPrefix("other.") ? run.path(value) : value]
    }
    if let number = value.flatMap(Int.init) { return ["--" + name, "\(number + 2)"] }
    guard let number = value.flatMap(Double.init) else { return nil }
    return ["--" + name, "\(number == 0 ? 0.25 : number / 2)"]
  }

  /// How the line calls it where it does not say the option's name.
  fileprivate var synonym: String {
    [
      "ranks-simulated": "simulated ranks", "budget-bytes": "policy", "budget-error": "policy", "fastest": "policy",
      "granularities": "pooling", "router-group-limit": "groups",
    ][name] ?? "--" + name
  }
}
