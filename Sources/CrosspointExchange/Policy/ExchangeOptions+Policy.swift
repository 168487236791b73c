import CrosspointCore

extension ExchangeOptions {
  /// Who chooses clusters and wire formats: the caller (``off``), or a budget that the exchange keeps by what it measures.
  ///
  /// ```swift
  /// ExchangeOptions(policy: .budget(bytes: 0.13))           // at most 13 % of bf16, at the least error
  /// ExchangeOptions(policy: .budget(relativeError: 0.05))   // at most 5 % of each transfer's norm, in the fewest bytes
  /// ```
  /// docs/tuning.md says what is measured, when the choice changes and when the answer is lossless.
  public struct Policy: Hashable, Sendable {
    enum Goal: Hashable, Sendable {
      case off
      case bytes(Double)
      case relativeError(Double)
    }

    let goal: Goal
    /// The transfers that the policy decides about; the others go as ``ExchangeOptions/wire`` and, for dispatch,
    /// ``ExchangeOptions/compression`` say.
    public var transfers = Set(TransferKind.allCases)
    /// Whether link and codec are timed when the exchange is made, and fp32 is sent where compression would take longer.
    /// What is chosen then depends on the clock, so that runs need not repeat.
    public var measuresSpeed = false

    private init(_ goal: Goal) { self.goal = goal }

    /// Settings are the caller's.
    public static let off = Policy(.off)

    /// At most this fraction of what the routed rows would take as bf16, every byte counted, on average over steps; within
    /// it the least error. In (0, 2]; 2 is what fp32 takes.
    public static func budget(bytes fraction: Double) -> Policy { Policy(.bytes(fraction)) }

    /// ‖x̂ − x‖ / ‖x‖ of what each transfer delivers at most this, in (0, 1]; within it the fewest bytes.
    public static func budget(relativeError: Double) -> Policy { Policy(.relativeError(relativeError)) }

    /// Whether it decides about this transfer.
    func governs(_ kind: TransferKind) -> Bool { goal != .off && transfers.contains(kind) }

    /// - Throws: `invalidArgument` for a budget outside its range.
    package func validate() throws(CrosspointError) {
      let (name, value, most): (String, Double, Double)
      switch goal {
      case .off: return
      case .bytes(let fraction): (name, value, most) = ("budget(bytes:)", fraction, 2)
      case .relativeError(let error): (name, value, most) = ("budget(relativeError:)", error, 1)
      }
      guard value > 0, value <= most else {
        throw CrosspointError(
          .invalidArgument, operation: "ExpertExchange.init", argument: name, "\(value) is not in (0, \(Int(most))]")
      }
    }
  }
}

extension ExchangeOptions.Policy: CustomStringConvertible {
  public var description: String {
    var text: String
    switch goal {
    case .off: return "off"
    case .bytes(let fraction): text = "bytes:\(fraction)"
    case .relativeError(let error): text = "error:\(error)"
    }
    if measuresSpeed { text += ",speed" }
    if transfers.count < TransferKind.allCases.count {
      text += TransferKind.allCases.filter(transfers.contains).map { ",\($0)" }.joined()
    }
    return text
  }
}
