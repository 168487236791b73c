import Crosspoint

/// Holds the share of the tokens that the model's gates delete: one α for all of them, so that each layer finds the share
/// that suits it [ours; MrT5 has one gate].
final class DeletionControl {
  private(set) var controller: RateController
  private let options: DeletionOptions
  private let fabric: any Fabric

  init(_ options: StageOptions, fabric: any Fabric) {
    self.options = options.deletionOptions(seed: options.seed)
    self.fabric = fabric
    controller = RateController(
      target: options.deletionRate, proportionalGain: options.deletionProportional,
      integralGain: options.deletionIntegral, leastWeight: options.deletionLeastWeight)
  }

  /// α of the next batch.
  var weight: Double { controller.weight }

  /// Moves α by what all gates of all ranks scored and would delete in an optimiser step. Collective.
  func observe(scored: Int, deleted: Int, step: Int) throws(CrosspointError) {
    let (deleted, scored) = try fabric.sum(Double(deleted), Double(scored), operation: "deletion")
    guard scored > 0 else { return }
    controller.observe(rate: deleted / scored, warmth: options.warmth(step: step))
  }

  /// - Throws: `checkpointMismatch` if it cannot be the controller's.
  func restore(_ state: [UInt64]) throws(CrosspointError) { try controller.restore(state) }
}
