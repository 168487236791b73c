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

  /// What of it no policy can have come to; `nil` where all is well.
  var defect: String? {
    if !(0...Self.countLimit).contains(clock) { return "its clock is \(clock)" }
    if directions.count != TransferKind.allCases.count {
      return "it has \(directions.count) kinds of transfer"
    }
    return directions.lazy.compactMap(\.defect).first ?? speed?.defect
  }

  /// No policy counts further in a lifetime, and every whole number up to it is a `Double`.
  static let countLimit = 1 << 53
}
