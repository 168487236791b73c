/// What went wrong, on which rank, in which step, with which argument.
///
/// Every failure of Crosspoint is one of these. A failure that arises on one rank during a collective step travels to
/// the others, so that every rank throws an equal value (``rank`` is the rank on which it arose, not the one that reports).
/// The description is one line that says what to do next.
public struct CrosspointError: Error, Sendable, Hashable {
  /// The kind of failure: an open set, so that later versions can add to it.
  public struct Code: Sendable, Hashable {
    package let rawValue: UInt32
    package init(rawValue: UInt32) { self.rawValue = rawValue }

    /// A shape, count, rate or option is out of range.
    public static let invalidArgument = Code(rawValue: 1)
    /// A token, weight or gradient is NaN or infinite and the policy is to refuse it, or beyond the bound of its wire format.
    public static let nonFinite = Code(rawValue: 2)
    /// The ranks were given different options, layouts or step orders.
    public static let ranksDisagree = Code(rawValue: 3)
    /// A received frame does not decode: wrong magic, version, checksum or sizes.
    public static let corruptFrame = Code(rawValue: 4)
    /// A rank sent fewer or more bytes than it announced.
    public static let truncatedFrame = Code(rawValue: 5)
    /// A rank did not answer before the deadline; ``CrosspointError/rank`` is the silent one.
    public static let deadlineExceeded = Code(rawValue: 6)
    /// A rank left (it threw, ended or was killed) while others still needed it.
    public static let rankLost = Code(rawValue: 7)
    /// A handle was used twice, out of order, or with another exchange.
    public static let handleMisuse = Code(rawValue: 8)
    /// A buffer could not be allocated, or the caller's cap forbids it.
    public static let outOfMemory = Code(rawValue: 9)
    /// The transport (MPI) reported an error.
    public static let transport = Code(rawValue: 10)
    /// A file could not be read or written, or does not hold what it should.
    public static let file = Code(rawValue: 11)
    /// A checkpoint belongs to another configuration.
    public static let checkpointMismatch = Code(rawValue: 12)
    /// Another rank refused its part of a step that only sums over ranks; the cause is that rank's error.
    public static let refusedElsewhere = Code(rawValue: 13)
    /// The program asked to stop while this rank waited for others.
    public static let interrupted = Code(rawValue: 14)
  }

  private struct Facts: Sendable, Hashable {
    let code: Code
    let operation: String
    var rank: Int?
    let argument: String
    let message: String
    var isAgreed = false
  }

  /// One pointer: nearly every function hands on an error, and nearly always there is none.
  private indirect enum Reference: Sendable, Hashable {
    case to(Facts)
  }

  private let reference: Reference
  private var facts: Facts {
    switch reference {
    case .to(let facts): facts
    }
  }

  private init(_ facts: Facts) { reference = .to(facts) }

  public init(_ code: Code, operation: String, rank: Int? = nil, argument: String, _ message: String) {
    self.init(Facts(code: code, operation: operation, rank: rank, argument: argument, message: message))
  }

  public var code: Code { facts.code }
  /// The public call in which it arose, for example `dispatch`.
  public var operation: String { facts.operation }
  /// The rank on which it arose; `nil` outside any communicator.
  public var rank: Int? { facts.rank }
  /// The argument or part at fault, for example `tokens`.
  public var argument: String { facts.argument }
  /// What was found and what was expected, with the value.
  public var message: String { facts.message }
  /// Whether every rank throws this same error: a fact that the vote of the ranks establishes (`Agreement` of module
  /// CrosspointFabric), and nothing else. After such an error the ranks are still in step; any other may be known to this
  /// rank alone, while others wait for it.
  public var isAgreed: Bool { facts.isAgreed }

  /// The same failure, as one that every rank throws.
  package var agreed: CrosspointError {
    var agreed = facts
    agreed.isAgreed = true
    return CrosspointError(agreed)
  }

  /// The same failure, attributed to a rank.
  package func on(rank: Int) -> CrosspointError {
    var moved = facts
    moved.rank = rank
    return CrosspointError(moved)
  }
}

extension CrosspointError: CustomStringConvertible {
  /// One line, `rank 1: dispatch: nonFinite: tokens: …`; docs/troubleshooting.md says what to do for each code.
  public var description: String {
    let place = rank.map { "rank \($0): " } ?? ""
    let what = operation == "\(code)" ? operation : "\(operation): \(code)"
    return "\(place)\(what): \(argument): \(message)"
  }
}

extension CrosspointError.Code: CustomStringConvertible {
  /// The codes of this version, with their names.
  package static let names: [(code: Self, name: String)] = [
    (invalidArgument, "invalidArgument"), (nonFinite, "nonFinite"), (ranksDisagree, "ranksDisagree"),
    (corruptFrame, "corruptFrame"), (truncatedFrame, "truncatedFrame"), (deadlineExceeded, "deadlineExceeded"),
    (rankLost, "rankLost"), (handleMisuse, "handleMisuse"), (outOfMemory, "outOfMemory"), (transport, "transport"),
    (file, "file"), (checkpointMismatch, "checkpointMismatch"), (refusedElsewhere, "refusedElsewhere"),
    (interrupted, "interrupted"),
  ]

  /// The name, for example `nonFinite`; `code 99` for one of a later version.
  public var description: String { Self.names.first { $0.code == self }?.name ?? "code \(rawValue)" }
}
