import CrosspointCompression
import CrosspointCore

extension ExpertExchange {
  /// How rows of a transfer are rounded: with random numbers for this layer, step, transfer and rank.
  func rounding(_ kind: Kind, _ handle: DispatchHandle) -> RowRounding {
    let isForward = kind == .dispatch || kind == .combine
    return RowRounding(isForward ? .nearest : options.gradientRounding, key: options.seed)
      .keyed(by: UInt64(layer)).keyed(by: handle.roundingStep).keyed(by: UInt64(kind.rawValue))
      .keyed(by: UInt64(fabric.rank))
  }
}
