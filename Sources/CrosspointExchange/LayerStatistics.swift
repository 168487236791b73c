import CrosspointCore
import CrosspointRouting

/// What one exchange moved and how long it took, summed since the last ``reset()``; this rank's share.
///
/// Ratios meant for the whole job need the sums over ranks: all counters are additive.
public struct LayerStatistics: Sendable, Equatable {
  /// Bytes of one kind of transfer.
  public struct Traffic: Sendable, Equatable {
    /// Bytes that left this rank: announcements, headers, counts, scales, rows and metadata; not the two votes
    /// to each rank, nor the transport's own.
    public var wireBytes = 0
    /// The part of ``wireBytes`` that went to ranks of the same node through memory that they share: no message.
    public var nodeBytes = 0
    /// Bytes that rows of every routed token, as they lie in memory, would have taken between this rank and the others, either way.
    public var uncompressedBytes = 0
    /// Bytes of rows that stayed on this rank; never counted as traffic.
    public var localBytes = 0
  }

  /// Seconds by phase.
  public struct Seconds: Sendable, Equatable {
    /// Rotating and hashing tokens, forming clusters and averaging them.
    public var hash = 0.0
    /// Sums over clusters, weights and residuals.
    public var cluster = 0.0
    public var encode = 0.0
    /// Waiting for other ranks to start the same step.
    public var skew = 0.0
    /// Moving bytes, decoding and the caller's own work not included.
    public var wait = 0.0
    public var decode = 0.0
    /// The caller's own work during transfers, see ``LocalWork``.
    public var meanwhile = 0.0
    /// A policy's samples of what is sent, and what it decodes of its own frames.
    public var policy = 0.0

    package init() {}

    mutating func add(_ other: Seconds) {
      hash += other.hash
      cluster += other.cluster
      encode += other.encode
      skew += other.skew
      wait += other.wait
      decode += other.decode
      meanwhile += other.meanwhile
      policy += other.policy
    }
  }

  /// Transfers of the kind dispatch.
  package var dispatches = 0
  /// Routed (token, choice) pairs.
  public var rowsRouted = 0
  /// Rows that stood for them: fewer with clusters or one copy per rank.
  public var rowsSent = 0
  package var traffic = [Traffic](repeating: Traffic(), count: TransferKind.allCases.count)
  /// Σ‖x − c‖² over routed tokens.
  package var residualSquared = 0.0
  /// Σ‖x‖² over routed tokens; measured only when clustering.
  package var tokenSquared = 0.0
  public var seconds = Seconds()
  /// By ``TransferKind``: what a policy chose, why, and what it predicted and measured; `nil` where it has not chosen.
  public var choices = [PolicyChoice?](repeating: nil, count: TransferKind.allCases.count)
  /// `[E]`: this rank's routed pairs per expert.
  public var tokensPerExpert: [Int]
  /// `[R]`: how often each rank was the last to reach a transfer.
  package var timesSlowest: [Int]

  init(experts: Int, ranks: Int) {
    tokensPerExpert = [Int](repeating: 0, count: experts)
    timesSlowest = [Int](repeating: 0, count: ranks)
  }

  public subscript(kind: TransferKind) -> Traffic { traffic[kind.rawValue] }

  public var wireBytes: Int { traffic.reduce(0) { $0 + $1.wireBytes } }
  public var nodeBytes: Int { traffic.reduce(0) { $0 + $1.nodeBytes } }
  public var uncompressedBytes: Int { traffic.reduce(0) { $0 + $1.uncompressedBytes } }
  /// Rows sent per routed pair, 1 without clusters and with a copy per expert; 1 when nothing was routed.
  public var rowsSentFraction: Double { rowsRouted == 0 ? 1 : Double(rowsSent) / Double(rowsRouted) }
  /// Share of the tokens' energy that stayed home as residuals.
  public var residualEnergy: Double { tokenSquared == 0 ? 0 : residualSquared / tokenSquared }
  /// The rank that was last most often.
  public var slowestRank: Int { timesSlowest.firstIndex(of: timesSlowest.max() ?? 0) ?? 0 }

  /// Adds what a dispatch decided.
  mutating func record(_ routing: Routing, rowsSent: Int) {
    dispatches += 1
    rowsRouted += routing.tokensPerExpert.reduce(0, +)
    self.rowsSent += rowsSent
    for expert in tokensPerExpert.indices { tokensPerExpert[expert] += routing.tokensPerExpert[expert] }
  }

  /// Adds what a transfer moved.
  mutating func record(_ measure: Transfer.Measure, _ kind: TransferKind, uncompressedBytes: Int) {
    traffic[kind.rawValue].wireBytes += measure.wireBytes
    traffic[kind.rawValue].nodeBytes += measure.nodeBytes
    traffic[kind.rawValue].uncompressedBytes += uncompressedBytes
    traffic[kind.rawValue].localBytes += measure.localBytes
    seconds.encode += measure.encode
    seconds.skew += measure.skew
    seconds.wait += measure.wait
    seconds.decode += measure.decode
    seconds.meanwhile += measure.meanwhile
    timesSlowest[measure.slowestRank] += 1
  }

  /// Adds the bytes and seconds of an exchange that is part of this one, which forgets them.
  mutating func take(_ part: inout LayerStatistics) {
    for kind in traffic.indices {
      traffic[kind].wireBytes += part.traffic[kind].wireBytes
      traffic[kind].nodeBytes += part.traffic[kind].nodeBytes
      traffic[kind].localBytes += part.traffic[kind].localBytes
    }
    seconds.add(part.seconds)
    for rank in timesSlowest.indices { timesSlowest[rank] += part.timesSlowest[rank] }
    part.reset()
  }

  /// Forgets everything so far.
  public mutating func reset() {
    // The choices stay: they hold, and were not counted.
    (dispatches, rowsRouted, rowsSent) = (0, 0, 0)
    (residualSquared, tokenSquared, seconds) = (0, 0, Seconds())
    traffic.refill(with: Traffic(), count: traffic.count)
    tokensPerExpert.refill(with: 0, count: tokensPerExpert.count)
    timesSlowest.refill(with: 0, count: timesSlowest.count)
  }
}
