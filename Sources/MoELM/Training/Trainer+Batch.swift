import CrosspointCore

/// Which sequences a rank reads.
extension Trainer {
  /// Fills the batch with this rank's part of the step's.
  func readBatch() {
    readSequences(
      options.batch, masks: { Corpus.generator(.masks, options.seed, progress.step, $0) },
      copy: { corpus.copySequence($0, step: progress.step, seed: options.seed, inputs: $1, targets: $2) })
  }

  /// Fills the batch with this rank's part of `count` held-out windows from `start` on; their masks never change.
  func readHeldOut(_ start: Int, count: Int, of windows: Int) {
    readSequences(
      count, masks: { Corpus.generator(.heldOutMasks, 0, 0, start + $0) },
      copy: { corpus.copyHeldOut(start + $0, of: windows, inputs: $1, targets: $2) })
  }

  /// This rank's contiguous part of `count` sequences; the first ranks take one more where they do not divide.
  private func readSequences(
    _ count: Int, masks: (Int) -> SplitMix64,
    copy: (Int, UnsafeMutablePointer<UInt8>, UnsafeMutablePointer<UInt8>) -> Void
  ) {
    let mine = count * fabric.rank / fabric.rankCount..<count * (fabric.rank + 1) / fabric.rankCount
    let shape = options.shape
    batch.resize(mine.count, shape)
    batch.withPointers { inputs, targets in
      for (slot, number) in mine.enumerated() {
        copy(number, inputs + slot * shape.context, targets + slot * shape.context)
      }
    }
    guard shape.objective == .masked else { return }
    for (slot, number) in mine.enumerated() {
      var generator = masks(number)
      batch.mask(
        slot * shape.context..<(slot + 1) * shape.context, count: shape.predictionsPerSequence, generator: &generator)
    }
  }
}
