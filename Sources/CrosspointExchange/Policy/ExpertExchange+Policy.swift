import CrosspointCompression
import CrosspointCore
import CrosspointTokens

/// Where the exchange asks its policy; without one, settings are the caller's.
extension ExpertExchange {
  /// What a policy has learned, for a checkpoint; `nil` without one. The same on every rank.
  public var policyState: PolicyState? { policy?.state }

  /// Continues from a ``policyState``: chooses as if the run had never stopped. Call it on every rank or on none.
  /// - Throws: `checkpointMismatch` for a state that no policy can be in; without a policy nothing happens.
  public func restore(_ state: PolicyState) throws(CrosspointError) {
    guard let policy else { return }
    if let defect = state.defect {
      throw CrosspointError(
        .checkpointMismatch, operation: "ExpertExchange.restore", argument: "policyState", defect)
    }
    policy.state = state
  }

  /// Whether a policy looks at what is sent and may change its choice; the same on every rank. Set it to false while
  /// evaluating, so that training goes on as if there had been no evaluation.
  public var policyAdapts: Bool {
    get { policy?.adapts ?? false }
    set { policy?.adapts = newValue }
  }

  /// Lets a policy sample the rows that a transfer is about to send and, where it has to, choose. Collective then.
  ///
  /// - Parameter clusterer: forms the clusters of the rates that are to be decided about.
  func sample(
    _ handle: DispatchHandle, _ clusterer: TokenClusterer?, _ attempt: inout Attempt
  ) throws(CrosspointError) {
    guard let policy else { return }
    var watch = Stopwatch()
    let kind = transfer.kind
    var failure = attempt.failure
    policy.begin(kind)
    try policy.look(
      kind, pairs: failure == nil ? pairsAway(handle) : 0, beside: failure == nil ? metadataBytes(kind, handle) : 0,
      clusterer: clusterer, rounding: rounding(kind, handle), failure: &failure
    ) { rank, groups in groups += transfer.sources[rank] }
    attempt.fail(failure)
    statistics.seconds.policy += watch.lap()
  }

  /// Measures what arrives of the rows that a transfer sends.
  func judge(_ handle: DispatchHandle, tokens: UnsafePointer<Float>?) throws(CrosspointError) {
    var watch = Stopwatch()
    try transfer.measureFidelity { rank, arrived in
      tokens.map { compare($0, with: arrived, to: rank, handle) }
    }
    statistics.seconds.policy += watch.lap()
  }

  /// The tokens that a rank gets, compared with the rows that stand for them.
  private func compare(
    _ tokens: UnsafePointer<Float>, with arrived: [RowTarget], to rank: Int, _ handle: DispatchHandle
  ) -> Transfer.Fidelity {
    var sum = Transfer.Fidelity()
    for (destination, rows) in zip(destinations(of: rank), arrived) {
      for member in handle.source.plan.members(of: destination) {
        let token = tokens + handle.source.plan.memberTokens[member] * layout.hidden
        let row = rows.base + handle.source.plan.memberRows[member] * layout.hidden
        sum.lost += kernels.squares(token, minus: row, layout.hidden)
        sum.whole += kernels.squares(token, layout.hidden)
      }
    }
    return sum
  }

  /// The format of the next transfer of a kind: the policy's, or the caller's.
  func transferFormat(_ kind: TransferKind) -> WireFormat {
    guard let policy, policy.options.governs(kind) else { return options.wire[kind] }
    return policy.choice(kind).wire
  }

  /// What clusters the tokens of the next dispatch, at most so many for a token; `nil` where none are clustered.
  var activeClusterer: TokenClusterer? {
    guard let clusterer else { return nil }
    guard let policy, policy.options.governs(.dispatch) else { return clusterer }
    guard let rate = policy.choice(.dispatch).clusterRate else { return nil }
    clusterer.limit(rate: rate)
    return clusterer
  }
}
