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
    let rate = try sharedRate(deleted, of: scored, reduceCounts: reduceCounts)
    (scored, deleted) = (0, 0)
    if let rate { controller?.observe(rate: rate) }
  }

  /// p, i and α. Take it between optimiser steps.
  public var state: [UInt64] { controller?.state ?? [] }

  public func restore(_ state: [UInt64]) throws(CrosspointError) {
    try expectState(state, count: self.state.count)
    controller?.restore(state)
    (scored, deleted) = (0, 0)
  }
}
