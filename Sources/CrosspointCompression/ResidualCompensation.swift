/// What of a token's residual `x − centroid` is added to the expert's output for its centroid.
///
/// The residual never travels. Text form: `none`, `identity`, `scaled`. Source: LSH-MoE (arXiv 2411.08446), Eq. 5.
public enum ResidualCompensation: Hashable, Sendable {
  /// Nothing: a token gets its centroid's output.
  case none
  /// The residual itself, as published: `y = E(c) + (x − c)`.
  case identity
  /// The residual times one learned number per expert: `y = E(c) + a (x − c)`.
  case scaled
}

extension ResidualCompensation: LosslessStringConvertible {
  public init?(_ description: String) {
    switch description {
    case "none": self = .none
    case "identity": self = .identity
    case "scaled": self = .scaled
    default: return nil
    }
  }

  public var description: String {
    switch self {
    case .none: "none"
    case .identity: "identity"
    case .scaled: "scaled"
    }
  }
}
