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
    var counts = [Double(deleted), Double(scored)]
    (scored, deleted) = (0, 0)
    try reduceCounts(&counts)
    guard counts.count == 2, counts[0] >= 0, counts[1] >= counts[0], counts[1].isFinite else {
      throw invalid("reduceCounts", "it did not return 2 sums of counts")
    }
    if counts[1] > 0 { controller?.observe(rate: counts[0] / counts[1]) }
  }

  /// p, i and α. Take it between optimiser steps.
  public var state: [UInt64] { controller?.state ?? [] }

  public func restore(_ state: [UInt64]) throws(CrosspointError) {
    try expectState(state, count: self.state.count)
    controller?.restore(state[...])
    (scored, deleted) = (0, 0)
  }
}
