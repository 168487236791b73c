/// The four transfers of a training step, in their order.
public enum TransferKind: Int, Sendable, CaseIterable {
  /// Tokens to the experts.
  case dispatch
  /// The experts' outputs home.
  case combine
  /// ∂L/∂output to the experts.
  case combineBackward
  /// ∂L/∂rows home.
  case dispatchBackward

  /// Whether rows go from their source to the experts.
  package var isToExperts: Bool { self == .dispatch || self == .combineBackward }

  /// The public call, for messages.
  package var operation: StaticString {
    switch self {
    case .dispatch: "dispatch"
    case .combine: "combine"
    case .combineBackward: "combineBackward"
    case .dispatchBackward: "dispatchBackward"
    }
  }
}
