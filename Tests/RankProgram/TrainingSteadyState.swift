import CAllocationCounter
import CrosspointCore
import CrosspointExchange
import MoELM

/// Training with routing that changes: after the first fifty steps a step neither calls the allocator nor touches pages
/// for the first time, the model, its router and its optimiser included. But that a buffer grows where more rows come than
/// ever before, which they do less and less often.
///
/// An argument gives the number of steps.
func trainingSteadyState(_ ranks: Ranks) throws {
  let steps = ranks.arguments.first.flatMap { Int($0) } ?? 150
  for (name, options) in try trainings(steps: steps) {
    let corpus = try Corpus(text(), context: options.shape.context, batch: options.batch)
    let trainer = try Trainer(fabric: ranks.fabric(), corpus: corpus, options: options)
    var (calls, pages): (UInt, UInt) = (0, 0)
    for step in 0..<steps {
      let before = xp_page_faults()
      xp_start_counting()
      _ = try trainer.step()
      let count = xp_stop_counting()
      guard step >= 50 else { continue }
      calls += count
      pages += xp_page_faults() - before
    }
    let most = UInt(steps / 2)  // a step that keeps nothing makes 59 and more
    try ranks.expect(calls <= most, "\(calls) allocator calls in \(steps - 50) steps, \(name)")
    try ranks.expect(pages <= 16 + 64 * calls, "\(pages) new pages in \(steps - 50) steps, \(name)")
  }
}

private func trainings(steps: Int) throws -> [(name: String, options: TrainingOptions)] {
  var plain = TrainingOptions()
  plain.shape.context = 16
  plain.shape.width = 32
  plain.shape.blocks = 2
  plain.shape.heads = 2
  plain.shape.experts = 8
  plain.shape.topK = 4
  plain.shape.expertWidth = 16
  plain.shape.sharedExperts = 1
  plain.batch = 32
  plain.steps = steps
  plain.warmup = 20

  var trimmed = plain
  trimmed.shape.stages.prune = .auto
  trimmed.shape.stages.pruneShare = 0.3
  trimmed.shape.stages.routerGroups = 4
  trimmed.shape.stages.groupsPerToken = 2.4
  trimmed.exchange = ExchangeOptions(copies: .perRank, wire: .init(try .rotated(bits: 6)))
  trimmed.exchange.wire.combineBackward = try .rotated(bits: 4)
  trimmed.exchange.wire.dispatchBackward = try .rotated(bits: 4)

  var budget = plain
  budget.exchange = ExchangeOptions(policy: .budget(bytes: 0.3))
  return [("fp32", plain), ("pruned, one copy per rank", trimmed), ("within a budget", budget)]
}

/// Words that follow one another at random: how much each expert gets changes from batch to batch.
private func text() -> [UInt8] {
  let words = ["light ", "darkness ", "and ", "the ", "waters ", "was ", "upon "]
  var generator = SplitMix64(seed: 7)
  return (0..<4000).flatMap { _ in Array(words[Int(generator.next() % 7)].utf8) }
}
