import CAllocationCounter
import CrosspointCore
import CrosspointExchange
import CrosspointPolicy
import CrosspointTestSupport
import Foundation
import MoELM

/// Training, the model, its router and its optimiser included: a step whose sizes have been before neither calls the
/// allocator nor touches pages for the first time.
///
/// Each training goes back to where it began and takes the same steps again, bit for bit. So every size of the third time
/// has been before, while routing changes from step to step. In the second, a pool may still want a small buffer beside one
/// that grew. An argument gives the number of steps.
func trainingSteadyState(_ ranks: Ranks) throws {
  let steps = ranks.arguments.first.flatMap { Int($0) } ?? 50
  for (name, options) in try trainings(steps: steps) {
    let corpus = try Corpus(text(), context: options.shape.context, batch: options.batch)
    let trainer = try Trainer(fabric: ranks.fabric(), corpus: corpus, options: options)
    let start = FileManager.default.temporaryDirectory.path + "/training-steady-state.\(getpid())"
    defer { try? FileManager.default.removeItem(atPath: start) }
    try trainer.saveCheckpoint(start)
    var losses: [Double] = []
    for time in 1...3 {
      try trainer.resume(start)
      var (calls, pages): (UInt, UInt) = (0, 0)
      for step in 0..<steps {
        let before = xp_page_faults()
        xp_start_counting()
        let loss = try trainer.step().bitsPerByte
        let count = xp_stop_counting()
        if time == 1 { losses.append(loss) }
        try ranks.expect(loss, is: losses[step], "loss of step \(step), time \(time), \(name)")
        guard step >= 2 else { continue }  // until then sums since the start take memory anew
        calls += count
        pages += xp_page_faults() - before
      }
      guard time == 3 else { continue }
      try ranks.expect(calls, is: 0, "allocator calls in steps like those before, \(name)")
      try ranks.expect(pages <= 16, "\(pages) new pages in steps like those before, \(name)")  // a few may be of MPI
    }
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
  plain.steps = 2 * steps  // the last quarter, whose start is remembered, is not reached
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
