import Crosspoint

/// One forward pass and the backward pass that may follow it: what both need to know besides the batch.
struct Pass {
  /// Step, batch, and whether this is training.
  var context: StageContext
  /// This rank's part of all tokens: what its mean losses count.
  var share: Float
  /// Tokens per row at which the experts see the batch; 1 is no pooling.
  var granularity = 1
  /// Whether no other granularity has seen the batch before.
  var isFirstOfBatch = true
  /// What the pass's loss is multiplied by: the passes of a step add up to 1.
  var weight: Float = 1
  /// What tokens are known by; empty where nothing is remembered of them.
  var labels: [Int32] = []
  var clock = StepClock(blocks: 0)
}
