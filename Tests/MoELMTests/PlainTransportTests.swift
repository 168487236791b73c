import Crosspoint
import Testing

@testable import MoELM

struct PlainTransportTests {
  @Test(arguments: [1, 2, 3, 4], [nil, 5])
  func itTrainsTheSameBitsAsFP32ThroughCrosspoint(ranks: Int, latent: Int?) throws {
    var options = tinyOptions()
    options.shape.latent = latent
    options.shape.topK = 2
    options.shape.sharedExperts = 1
    options.shape.stages.prune = .auto
    options.shape.stages.pruneShare = 0.3
    let cluster = SimulatedCluster(ranks: ranks)
    let expected = try lossCurve(options, cluster)
    options.transport = .plain
    #expect(try lossCurve(options, cluster) == expected)
  }

  @Test(arguments: [nil, 6]) func itCountsTheRowsThatItSends(latent: Int?) throws {
    var options = tinyOptions()
    options.shape.latent = latent
    options.transport = .plain
    let corpus = try tinyCorpus(options)
    let summary = try SimulatedCluster(ranks: 2).run { [options] fabric in
      try TrainingRun(fabric: fabric, corpus: corpus, options: options, run: RunOptions.standard, quiet: true).train()
    }[0]
    #expect(summary.rowsSentFraction == 1)
    let share = Double(latent ?? 12) / 12
    #expect(
      summary.wireFraction > share && summary.wireFraction < share + 0.1, "rows and counts: \(summary.wireFraction)")
    #expect(summary.options["transport"] == "plain")
  }

  @Test(arguments: [
    (ExchangeOptions(copies: .perRank), "copies"), (ExchangeOptions(wire: .init(.bf16)), "wire-dispatch"),
    (ExchangeOptions(compression: .lshMoE), "compression"), (ExchangeOptions(policy: .budget(bytes: 0.5)), "policy"),
  ]) func itRefusesWhatItCannotDo(exchange: ExchangeOptions, option: String) throws {
    var options = tinyOptions()
    options.exchange = exchange
    options.transport = .plain
    let error = #expect(throws: CrosspointError.self) { try options.validate() }
    #expect(error?.code == .invalidArgument && error?.argument == "transport")
    #expect(error?.message.contains(option) == true, "\(error!)")
  }
}
