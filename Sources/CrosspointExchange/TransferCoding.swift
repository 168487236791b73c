import CrosspointCompression
import CrosspointCore

/// How one transfer of one rank is coded.
struct TransferCoding {
  /// With random numbers for this layer, step, transfer and rank.
  let rounding: RowRounding
  let feedback: GradientFeedback?
}

extension ExpertExchange {
  /// The coding of a transfer of the step that `handle` belongs to.
  func coding(_ kind: Kind, _ handle: DispatchHandle) -> TransferCoding {
    let isForward = kind == .dispatch || kind == .combine
    let rounding = RowRounding(isForward ? options.forwardRounding : options.gradientRounding, key: options.seed)
      .keyed(by: UInt64(layer)).keyed(by: handle.roundingStep).keyed(by: UInt64(kind.rawValue))
      .keyed(by: UInt64(fabric.rank))
    guard !isForward, let feedback else { return TransferCoding(rounding: rounding, feedback: nil) }
    feedback.begin(kind)
    return TransferCoding(rounding: rounding, feedback: feedback)
  }
}
