import CrosspointCompression
import CrosspointCore
import CrosspointTokens

/// Everything that can be chosen about an exchange. The same on every rank: checked once, at init.
///
/// ```swift
/// ExchangeOptions()                                              // lossless fp32
/// ExchangeOptions(rows: .bf16)                                   // lossless bf16
/// ExchangeOptions(compression: .lshMoE, compensation: .identity, wire: .init(.bf16))
/// ```
public struct ExchangeOptions: Hashable, Sendable {
  /// Which rows stand for the tokens.
  public enum Compression: Hashable, Sendable {
    /// Every routed token is a row of its own.
    case off
    /// Tokens alike for the same expert travel as their centroid (LSH-MoE, arXiv 2411.08446, Algorithm 1).
    case crossPolytope(ClusterOptions = .init())

    /// The paper's setting: six hash functions.
    public static let lshMoE = Compression.crossPolytope(.lshMoE)
  }

  /// How often a token with several experts in one place travels there.
  public enum Copies: Hashable, Sendable {
    /// Once for each of them: a row per routed (token, expert) pair.
    case perExpert
    /// Once to a rank: it hands the row to its experts, and sums what they make of it before it sends that home.
    case perRank
    /// Once to a node: the rank there with the sender's place in its node takes the row on to the node's experts, uncoded, and
    /// sums what they make of it. Bits depend on how many ranks a node has, not on the machine.
    ///
    /// - Parameter ranks: consecutive ranks that form a node; `nil`: those that share memory, as many everywhere.
    case perNode(ranks: Int? = nil)
    /// One of the others, chosen when the exchange is made, the same on every rank: per expert, unless another leaves at most
    /// three quarters of the rows between nodes, counted for experts chosen at random. What was chosen is in
    /// ``ExpertExchange/options``.
    ///
    /// - Parameter topK: experts of a token; an exchange needs it.
    case automatic(topK: Int? = nil)
  }

  /// How rows become bytes, for each of the four transfers of a training step.
  public struct Wire: Hashable, Sendable {
    public var dispatch: WireFormat
    public var combine: WireFormat
    public var combineBackward: WireFormat
    public var dispatchBackward: WireFormat

    /// The same format for all four.
    public init(_ format: WireFormat) {
      dispatch = format
      combine = format
      combineBackward = format
      dispatchBackward = format
    }

    package subscript(kind: TransferKind) -> WireFormat {
      switch kind {
      case .dispatch: dispatch
      case .combine: combine
      case .combineBackward: combineBackward
      case .dispatchBackward: dispatchBackward
      }
    }
  }

  /// How rows reach ranks that share their memory.
  public enum WithinNode: String, Hashable, Sendable, CaseIterable {
    /// In the wire's format: the same bits whichever ranks form a node.
    case coded
    /// As fp32, read or written where they lie: no codec's time and no error, but bits depend on which ranks form a node.
    case plain
  }

  /// When the ranks agree that all went well in a transfer after its announcements: that every row arrived undamaged, that
  /// memory sufficed for it, and what the caller's own work threw. What went wrong before is thrown by the transfer itself.
  public enum Agreement: String, Hashable, Sendable, CaseIterable {
    /// At its end: the transfer throws, on every rank.
    case immediate
    /// With the next transfer of any exchange on the same fabric, its next vote or ``ExpertExchange/settle()``, which throws in
    /// its place, on every rank: a round less for each transfer without rows in shared memory. Until then a rank's results
    /// may be worth nothing: its rows are zeros, or none, and its handle is refused from then on.
    case deferred
  }

  /// What to do about NaN and infinity in tokens, expert outputs and gradients. Finite values beyond what
  /// their wire format carries are refused in either case.
  public enum NonFinitePolicy: String, Hashable, Sendable, CaseIterable {
    /// Refuse them on every rank, naming rank and row.
    case error
    /// Let them travel.
    case propagate
  }

  /// How tokens, outputs and gradients lie in memory: every batch that goes in or comes out. Sums are taken in floats and
  /// rounded once where they are stored: results are those of floats with the same values, rounded. bf16 rows go without
  /// clusters, shared copies, a memory and a policy.
  public var rows: RowType
  public var compression: Compression
  public var copies: Copies
  public var compensation: ResidualCompensation
  public var wire: Wire
  public var withinNode: WithinNode
  public var nonFinite: NonFinitePolicy
  public var agreement: Agreement
  /// What both ends remember of earlier rows need not be sent: entropy-coded rows are then relative to what all ranks learn
  /// together, in the first transfers and then in every so many-th step; 0: nothing is remembered. See docs/algorithms.md.
  public var memory: Int
  /// Who chooses compression and wire. A policy takes from `compression` how tokens are hashed, and the rate is its own.
  public var policy: Policy
  /// The most bytes that the exchange's buffers may take on this rank.
  public var capacityBytes: Int
  /// Seeds the rotation and, with layer and step, the rounding of gradients.
  public var seed: UInt64

  public init(
    rows: RowType = .fp32, compression: Compression = .off, copies: Copies = .perExpert,
    compensation: ResidualCompensation = .identity, wire: Wire = .init(.fp32), withinNode: WithinNode = .coded,
    nonFinite: NonFinitePolicy = .error, agreement: Agreement = .immediate, memory: Int = 0,
    policy: Policy = .off, capacityBytes: Int = .max, seed: UInt64 = 0
  ) {
    self.rows = rows
    self.compression = compression
    self.copies = copies
    self.compensation = compensation
    self.wire = wire
    self.withinNode = withinNode
    self.nonFinite = nonFinite
    self.agreement = agreement
    self.memory = memory
    self.policy = policy
    self.capacityBytes = capacityBytes
    self.seed = seed
  }

  /// Of options whose copies are decided.
  /// - Throws: `invalidArgument` for a memory that no transfer makes use of, for a compensation that learns where rows serve
  ///   several experts, for plain rows within a node where a policy counts on its own formats, and for what works with rows
  ///   of floats alone.
  func validate() throws(CrosspointError) {
    if rows != .fp32 {
      let others = [
        ("compression", "\(compression)", "off"), ("copies", "\(copies)", "expert"), ("memory", "\(memory)", "0"),
        ("policy", "\(policy)", "off"),
      ]
      if let (name, value, only) = others.first(where: { $0.1 != $0.2 }) {
        throw CrosspointError(
          .invalidArgument, operation: "ExchangeOptions", argument: "rows",
          "\(rows) rows need \(name) \(only), not \(value): use fp32 rows, or \(name) \(only)")
      }
    }
    if withinNode == .plain, policy != .off {
      throw CrosspointError(
        .invalidArgument, operation: "ExchangeOptions", argument: "withinNode",
        "plain rows keep no policy's budget: use coded with policy \(policy)")
    }
    let formats = TransferKind.allCases.map { wire[$0] }
    guard memory == 0 || memory > 0 && (policy != .off || formats.contains(where: \.remembers)) else {
      throw CrosspointError(
        .invalidArgument, operation: "ExchangeOptions", argument: "memory",
        memory < 0
          ? "\(memory) steps; give 1 or more, or 0 for none"
          : "no transfer is relative to what is remembered: it needs a wire of entropy:BITS or weighted:BITS, or a budget"
      )
    }
    guard copies != .perExpert else { return }
    switch activeCompensation {
    case .none, .identity: return
    case .lowRank:
      throw CrosspointError(
        .invalidArgument, operation: "ExchangeOptions", argument: "compensation",
        "\(compensation) learns for each expert, but with shared copies a row serves several: use identity or none")
    }
  }

  /// How tokens are clustered, if they are or a policy may decide so; `nil`: they never are.
  var clusters: ClusterOptions? {
    let isPolicys = policy.governs(.dispatch)
    switch compression {
    case .crossPolytope(var clusters):
      if isPolicys { clusters.rate = clusters.rate ?? 1 }
      return clusters
    case .off: return isPolicys ? ClusterOptions(rate: 1, refinements: 1) : nil
    }
  }

  /// The compensation that takes part: `none` where tokens are never clustered, since there are no residuals then.
  package var activeCompensation: ResidualCompensation { clusters == nil ? .none : compensation }

  /// Whether every row arrives with the bits that were sent.
  package var isLossless: Bool { compression == .off && wire == Wire(.fp32) && policy == .off }

  /// `key=value` pairs in a fixed order: what the ranks compare, and what summaries print.
  package var pairs: [(key: String, value: String)] {
    return [
      ("rows", rows.rawValue), ("compression", "\(compression)"), ("copies", "\(copies)"),
      ("compensation", "\(compensation)"),
      ("wire-dispatch", "\(wire.dispatch)"), ("wire-combine", "\(wire.combine)"),
      ("wire-combine-backward", "\(wire.combineBackward)"), ("wire-dispatch-backward", "\(wire.dispatchBackward)"),
      ("within-node", withinNode.rawValue),
      ("non-finite", nonFinite.rawValue), ("agreement", agreement.rawValue), ("memory", "\(memory)"),
      ("policy", "\(policy)"), ("seed", "\(seed)"),
    ]
  }
}

extension ExchangeOptions: CustomStringConvertible {
  public var description: String { pairs.map { "\($0.key)=\($0.value)" }.joined(separator: " ") }
}
