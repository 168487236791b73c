import CrosspointCore
import CrosspointRouting

/// What is learned, what moves once per step, and what a checkpoint holds.
extension DeletionGate {
  /// `[γ (d) | w (d) | b]`; empty without a learned gate.
  public var parameters: [Float] {
    get { gate?.parameters ?? [] }
    set { gate?.parameters = newValue }
  }

  public var gradients: [Float] {
    get { gate?.gradients ?? [] }
    set { gate?.gradients = newValue }
  }

  /// Moves α by the share of rows that all ranks deleted since the last step. Without a controller nothing happens.
  public func step(reduceCounts: CountReduction) throws(CrosspointError) {
    guard controller != nil else { return }
    let counts = takeCounts()
    if let rate = try sharedRate(counts.deleted, of: counts.scored, reduceCounts: reduceCounts) {
      controller?.observe(rate: rate, warmth: options.warmth(step: lastStep))
    }
  }

  /// Rows of this rank scored in training since the last call, and those of them to be deleted, soft batches included:
  /// what a controller of the caller's own is to observe, summed over ranks and gates.
  public func takeCounts() -> (scored: Int, deleted: Int) {
    defer { (scored, deleted) = (0, 0) }
    return (scored, deleted)
  }

  /// p, i and α. Take it between optimiser steps.
  public var state: [UInt64] { controller?.state ?? [] }

  public func restore(_ state: [UInt64]) throws(CrosspointError) {
    try expectState(state, count: self.state.count)
    try controller?.restore(state)
    (scored, deleted) = (0, 0)
  }
}
