import CrosspointCompression
import CrosspointCore

/// Where the exchange asks its policy; without one, settings are the caller's.
extension ExpertExchange {
  /// What a policy has learned; `nil` without one. The same on every rank: set it everywhere or nowhere.
  ///
  /// A run that continues from a checkpoint with this state chooses as if it had never stopped.
  public var policyState: PolicyState? {
    get { policy?.state }
    set { if let newValue { policy?.state = newValue } }
  }

  /// Whether a policy looks at what is sent and may change its choice; the same on every rank. Set it to false while
  /// evaluating, so that training goes on as if there had been no evaluation.
  public var policyAdapts: Bool {
    get { policy?.adapts ?? false }
    set { policy?.adapts = newValue }
  }

  /// One transfer whose rows are known: look, then move. Collective.
  func run(
    _ kind: Kind, _ handle: DispatchHandle, failure: CrosspointError?, checked: CheckedBatch? = nil,
    sources: (_ peer: Int, _ groups: inout [RowSource]) -> Void,
    targets: (_ peer: Int, _ groups: inout [RowTarget]) -> Void,
    completed: () throws(CrosspointError) -> Void = { () throws(CrosspointError) in }, meanwhile work: LocalWork
  ) throws(CrosspointError) {
    var failure = failure
    let rounding = rounding(kind, handle)
    policy?.begin(kind)
    try look(kind, handle, rounding, failure: &failure, sources: sources)
    try move(
      kind, handle, rounding, failure: failure, checked: checked, sources: sources, targets: targets,
      completed: completed, meanwhile: work)
  }

  /// Lets the policy look at the rows of a transfer.
  func look(
    _ kind: Kind, _ handle: DispatchHandle, _ rounding: RowRounding, failure: inout CrosspointError?,
    sources: (_ peer: Int, _ groups: inout [RowSource]) -> Void
  ) throws(CrosspointError) {
    var watch = Stopwatch()
    try policy?.look(
      kind, pairs: failure == nil ? pairsAway(handle) : 0, beside: failure == nil ? bytesBeside(kind, handle) : 0,
      clusterer: kind == .dispatch ? clusterer : nil,
      rounding: rounding, failure: &failure, sources: sources)
    statistics.seconds.policy += watch.lap()
  }

  /// One transfer in the format that was chosen; what it moved goes into the statistics.
  func move(
    _ kind: Kind, _ handle: DispatchHandle, _ rounding: RowRounding, failure: CrosspointError?,
    checked: CheckedBatch? = nil, sources: (_ peer: Int, _ groups: inout [RowSource]) -> Void,
    sized: (_ rows: (_ source: Int, _ group: Int) -> Int) throws(CrosspointError) -> Void = {
      _ throws(CrosspointError) in
    },
    targets: (_ peer: Int, _ groups: inout [RowTarget]) -> Void,
    completed: () throws(CrosspointError) -> Void = { () throws(CrosspointError) in }, meanwhile work: LocalWork
  ) throws(CrosspointError) {
    if let policy { transfer.note = policy.outgoing(kind, pairs: failure == nil ? pairsAway(handle) : 0) }
    let governed = policy.flatMap { $0.options.governs(kind) ? $0.choice(kind) : nil }
    try transfer.run(
      kind, format: transferFormat(kind), bytesBefore: policy?.takeExtraBytes() ?? 0, failure: failure,
      checked: checked, rounding: rounding, sources: sources, sized: sized, targets: targets,
      completed: completed, meanwhile: work)
    policy?.conclude(kind) { rank in transfer.announcement(of: rank).note }
    if governed != nil { statistics.choices[kind.rawValue] = policy?.choice(kind) }
    record(kind, handle)
  }

  /// The format of the next transfer of a kind: the policy's, or the caller's.
  func transferFormat(_ kind: Kind) -> WireFormat {
    guard let policy, policy.options.governs(kind) else { return options.wire[kind] }
    return policy.choice(kind).wire
  }

  /// Whether the next dispatch clusters its tokens, and at most so many for a token.
  var clustersNow: Bool {
    guard let clusterer else { return false }
    guard let policy, policy.options.governs(.dispatch) else { return true }
    guard let rate = policy.choice(.dispatch).clusterRate else { return false }
    clusterer.limit(rate: rate)
    return true
  }

  /// Members of rows of a dispatch that go to other ranks: routed pairs or, with one copy per rank, pairs of token and rank.
  func pairsAway(_ handle: DispatchHandle) -> Int {
    handle.plan.members - handle.plan.members(ofExperts: localLanes)
  }
}
