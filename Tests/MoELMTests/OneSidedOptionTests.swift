import Crosspoint
import Testing

@testable import MoELM

/// One rank is given another value than the others: training does not begin.
@Suite struct OneSidedOptionTests {
  private struct Case {
    let option: String
    let values: (odd: String, others: String)
    let change: @Sendable (inout TrainingOptions, inout RunOptions) -> Void

    init(
      _ option: String, _ odd: String, _ others: String,
      _ change: @escaping @Sendable (inout TrainingOptions, inout RunOptions) -> Void
    ) {
      self.option = option
      values = (odd, others)
      self.change = change
    }
  }

  private static let cases = [
    Case("learning-rate", "0.03", "0.01") { options, _ in options.learningRate = 0.03 },
    Case("batch", "2", "4") { options, _ in options.batch = 2 },
    Case("clip", "0.5", "1.0") { options, _ in options.clip = 0.5 },
    Case("heads", "3", "2") { options, _ in options.shape.heads = 3 },
    Case("latent", "5", "none") { options, _ in options.shape.latent = 5 },
    Case("top-k", "1", "2") { options, _ in options.shape.topK = 1 },
    Case("steps", "7", "6") { options, _ in options.steps = 7 },
    Case("warmup", "1", "2") { options, _ in options.warmup = 1 },
    Case("weight-decay", "0.0", "0.1") { options, _ in options.weightDecay = 0 },
    Case("eval-windows", "4", "3") { options, _ in options.evalWindows = 4 },
    Case("seed", "2", "1") { options, _ in options.seed = 2 },
    Case("transport", "plain", "crosspoint") { options, _ in options.transport = .plain },
    Case("checkpoint", "other", "none") { _, run in run.checkpoint = "other" },
    Case("eval-every", "0", "250") { _, run in run.evalEvery = 0 },
  ]

  @Test func everyRankNamesTheOptionThatDiffersWithBothValues() throws {
    let corpus = try tinyCorpus(tinyOptions())
    for (odd, ranks) in [(1, 2), (2, 4)] {
      for differing in Self.cases {
        let results = SimulatedCluster(ranks: ranks).results { fabric in
          var (options, run) = (tinyOptions(), RunOptions.standard)
          if fabric.rank == odd { differing.change(&options, &run) }
          _ = try TrainingRun(fabric: fabric, corpus: corpus, options: options, run: run, quiet: true)
        }
        for result in results {
          let error = #expect(throws: CrosspointError.self, "\(differing.option)") { try result.get() }
          #expect(error?.code == .ranksDisagree && error?.isAgreed == true, "\(differing.option): \(error as Any)")
          #expect(error?.argument == differing.option && error?.rank == odd)
          let values = "\(differing.values.odd) on rank \(odd), \(differing.values.others) on rank 0"
          #expect(error?.message.contains(values) == true, "\(error as Any)")
        }
      }
    }
  }
}
