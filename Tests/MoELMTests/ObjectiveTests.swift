import Crosspoint
import CrosspointTestSupport
import Testing

@testable import MoELM

@Suite struct ObjectiveTests {
  private func masked() -> TrainingOptions {
    var options = tinyOptions()
    options.shape.objective = .masked
    options.shape.maskFraction = 0.3
    return options
  }

  @Test func everySequenceHasTheSameNumberOfMasksWhateverTheRankCount() throws {
    let options = masked()
    #expect(options.shape.predictionsPerSequence == 2)  // 0.3 · 8, rounded
    let corpus = try tinyCorpus(options)
    func batches(ranks: Int, step: Int) throws -> (inputs: [UInt8], targets: [UInt8], masked: [Bool]) {
      let parts = try SimulatedCluster(ranks: ranks).run { fabric in
        let trainer = try Trainer(fabric: fabric, corpus: corpus, options: options)
        trainer.progress.step = step
        trainer.readBatch()
        return trainer.batch
      }
      return (parts.flatMap(\.inputs), parts.flatMap(\.targets), parts.flatMap(\.masked))
    }
    let one = try batches(ranks: 1, step: 0)
    for sequence in 0..<4 { #expect(one.masked[sequence * 8..<sequence * 8 + 8].count { $0 } == 2) }
    #expect(one.inputs == one.targets)
    let three = try batches(ranks: 3, step: 0)
    #expect(three.inputs == one.inputs && three.masked == one.masked)
    #expect(try batches(ranks: 1, step: 1).masked != one.masked)
  }

  @Test func theModelDoesNotSeeWhatIsMasked() throws {
    let options = masked()
    let corpus = try tinyCorpus(options)
    let losses = try SimulatedCluster(ranks: 1).run { fabric in
      let trainer = try Trainer(fabric: fabric, corpus: corpus, options: options)
      trainer.readBatch()
      let pass = trainer.pass(isTraining: true, granularity: 1)
      let before = try trainer.model.forward(trainer.batch, pass).surprise
      for row in 0..<trainer.batch.rows where trainer.batch.masked[row] { trainer.batch.inputs[row] ^= 0xFF }
      let unseen = try trainer.model.forward(trainer.batch, pass).surprise
      for row in 0..<trainer.batch.rows where !trainer.batch.masked[row] { trainer.batch.inputs[row] ^= 0xFF }
      return [before, unseen, try trainer.model.forward(trainer.batch, pass).surprise]
    }[0]
    #expect(losses[0] == losses[1])
    #expect(losses[0] != losses[2])
  }

  @Test func itLearnsAndLooksBothWays() throws {
    var options = masked()
    options.steps = 30
    let corpus = try tinyCorpus(options)
    let curve = try SimulatedCluster(ranks: 2).run { [options] fabric in
      let trainer = try Trainer(fabric: fabric, corpus: corpus, options: options)
      var losses: [Double] = []
      while trainer.progress.step < options.steps { losses.append(try trainer.step().bitsPerByte) }
      return losses + [try trainer.evaluate()]
    }[0]
    #expect(curve[30] < curve[0] - 2)
    // A change of the last byte reaches the first place's prediction.
    let first = try SimulatedCluster(ranks: 1).run { [options] fabric in
      let trainer = try Trainer(fabric: fabric, corpus: corpus, options: options)
      trainer.readBatch()
      trainer.batch.masked = (0..<trainer.batch.rows).map { $0 % options.shape.context == 0 }
      let pass = trainer.pass(isTraining: true, granularity: 1)
      let before = try trainer.model.forward(trainer.batch, pass).surprise
      trainer.batch.inputs[trainer.batch.rows - 1] ^= 0xFF
      return [before, try trainer.model.forward(trainer.batch, pass).surprise]
    }[0]
    #expect(first[0] != first[1])
  }
}
