/// What of a token's residual `x − c` is added to the expert's output for its centroid c: `y = E(c) + A (x − c)`.
///
/// The residual never travels, so none of these costs traffic. Text form: `none`, `identity`, `lowrank:R`.
/// Source: LSH-MoE (arXiv 2411.08446), Eq. 5, for the identity; the learned map is ours.
public enum ResidualCompensation: Hashable, Sendable {
  /// A = 0: a token gets its centroid's output.
  case none
  /// A = 1: the residual itself, as published.
  case identity
  /// A = 1 + U Vᵀ: the identity and a learned map of rank R per expert. It starts as the identity.
  case lowRank(Int)
}

extension ResidualCompensation: LosslessStringConvertible {
  public init?(_ description: String) {
    let parts = description.split(separator: ":", omittingEmptySubsequences: false)
    switch (description, parts.first, parts.count == 2 ? Int(parts[1]) : nil) {
    case ("none", _, _): self = .none
    case ("identity", _, _): self = .identity
    case (_, "lowrank", let rank?) where rank > 0: self = .lowRank(rank)
    default: return nil
    }
  }

  public var description: String {
    switch self {
    case .none: "none"
    case .identity: "identity"
    case .lowRank(let rank): "lowrank:\(rank)"
    }
  }
}
