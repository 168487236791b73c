import CrosspointExchange

/// Everything that a policy remembers: part of a checkpoint, the same on every rank.
struct PolicyState: Codable, Equatable, Sendable {
  /// Transfers that it has seen: what says when to sample.
  var clock = 0
  /// By ``TransferKind``.
  var transfers = [TransferChoiceState](
    repeating: TransferChoiceState(), count: TransferKind.allCases.count)
  var speed: PolicySpeed?

  subscript(kind: TransferKind) -> TransferChoiceState {
    get { transfers[kind.rawValue] }
    set { transfers[kind.rawValue] = newValue }
  }

  /// What of it no policy can have come to; `nil` where all is well.
  var defect: String? {
    if !(0...Self.countLimit).contains(clock) { return "its clock is \(clock)" }
    if transfers.count != TransferKind.allCases.count {
      return "it has \(transfers.count) kinds of transfer"
    }
    return transfers.lazy.compactMap(\.defect).first ?? speed?.defect
  }

  /// No policy counts further in a lifetime, and every whole number up to it is a `Double`.
  static let countLimit = 1 << 53
}
