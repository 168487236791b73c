/// Everything that a policy remembers: part of a checkpoint, the same on every rank.
public struct PolicyState: Codable, Equatable, Sendable {
  /// Transfers that it has seen: what says when to look.
  var clock = 0
  /// By ``LayerStatistics/TransferKind``.
  var directions = [PolicyDirection](
    repeating: PolicyDirection(), count: TransferKind.allCases.count)
  var speed: PolicySpeed?

  subscript(kind: TransferKind) -> PolicyDirection {
    get { directions[kind.rawValue] }
    set { directions[kind.rawValue] = newValue }
  }
}
