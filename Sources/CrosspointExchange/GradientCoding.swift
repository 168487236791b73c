import CrosspointCompression
import CrosspointCore

/// How one gradient transfer of one rank is coded.
struct GradientCoding {
  /// With random numbers for this layer, step, transfer and rank.
  let rounding: RowRounding
  let feedback: GradientFeedback?
}

extension ExpertExchange {
  /// The coding of a gradient transfer of the step that `handle` belongs to.
  func coding(_ kind: Kind, _ handle: DispatchHandle) -> GradientCoding {
    let rounding = RowRounding(options.gradientRounding, key: options.seed)
      .keyed(by: UInt64(layer)).keyed(by: handle.gradientStep).keyed(by: UInt64(kind.rawValue))
      .keyed(by: UInt64(fabric.rank))
    feedback?.begin(kind)
    return GradientCoding(rounding: rounding, feedback: feedback)
  }
}
