import CrosspointCore

extension ExchangeOptions {
  /// Who chooses clusters and wire formats: the caller (``off``), or a budget that is kept by what is measured.
  ///
  /// ```swift
  /// ExchangeOptions(policy: .budget(bytes: 0.13))           // at most 13 % of bf16, at the least error
  /// ExchangeOptions(policy: .budget(relativeError: 0.05))   // at most 5 % of each transfer's norm, in the fewest bytes
  /// ```
  /// Budgets are CrosspointPolicy's. docs/tuning.md says what is measured, when the choice changes and when the answer is
  /// lossless.
  public struct Policy: Hashable, Sendable {
    /// `nil`: settings are the caller's.
    let settings: (any PolicySettings)?
    /// The transfers that the policy decides about; the others go as ``ExchangeOptions/wire`` and, for dispatch,
    /// ``ExchangeOptions/compression`` say.
    package var transfers = Set(TransferKind.allCases)

    package init(_ settings: (any PolicySettings)?) { self.settings = settings }

    /// Settings are the caller's.
    public static let off = Policy(nil)

    /// Whether it decides about this transfer.
    func governs(_ kind: TransferKind) -> Bool { settings != nil && transfers.contains(kind) }

    /// Its part of an exchange; `nil` where it is off.
    func makePolicy(_ transfer: Transfer) throws(CrosspointError) -> (any TransferPolicy)? {
      try validate()
      return try settings?.makePolicy(
        PolicyContext(
          fabric: transfer.fabric, codec: transfer.codec, pool: transfer.pool, transfers: transfers,
          announcementBytes: transfer.leastRecordBytes))
    }

    /// - Throws: `invalidArgument` for a budget outside its range.
    package func validate() throws(CrosspointError) { try settings?.validate() }

    /// As the ranks compare them: by their text.
    public static func == (a: Self, b: Self) -> Bool { a.description == b.description }
    public func hash(into hasher: inout Hasher) { hasher.combine(description) }
  }
}

extension ExchangeOptions.Policy: CustomStringConvertible {
  public var description: String {
    guard let settings else { return "off" }
    guard transfers.count < TransferKind.allCases.count else { return settings.description }
    return settings.description + TransferKind.allCases.filter(transfers.contains).map { ",\($0)" }.joined()
  }
}
