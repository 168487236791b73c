import CrosspointCompression
import CrosspointCore
import CrosspointTokens

/// Where the exchange asks and tells its policy; without one, nothing of this is called.
extension ExpertExchange {
  /// Before a transfer: what to use. The policy may sample the rows in the transfer's sources. Collective.
  ///
  /// - Parameter clusterer: forms the clusters of the rates that are to be decided about.
  func prepare(
    _ policy: any TransferPolicy, _ handle: DispatchHandle, _ clusterer: TokenClusterer?, _ attempt: inout Attempt
  ) throws(CrosspointError) {
    guard isAlone else { return }
    var watch = Stopwatch()
    let kind = transfer.kind
    var failure = attempt.failure
    call.plan = try policy.prepare(
      PendingTransfer(
        kind: kind, pairs: failure == nil ? pairsAway(handle) : 0,
        metadataBytes: failure == nil ? metadataBytes(kind, handle) : 0, rounding: rounding(kind, handle),
        memory: transfer.memory, standingBytes: failure == nil ? transfer.standingBytes : 0, clusterer: clusterer,
        sources: transfer.sources),
      failure: &failure)
    attempt.fail(failure)
    statistics.seconds.policy += watch.lap()
  }

  /// After a transfer: what happened.
  func conclude(_ policy: any TransferPolicy) {
    let kind = transfer.kind
    let before = statistics.choices[kind.rawValue]
    let choice =
      transfer.note.isEmpty ? call.plan?.choice : policy.conclude(kind, transfer.outcome) { transfer.told(by: $0) }
    statistics.choices[kind.rawValue] = choice
    // All ranks chose the same.
    if fabric.rank == 0, let choice, choice.wire != before?.wire || choice.clusterRate != before?.clusterRate {
      Log.write(.info, rank: 0, "layer \(layer): \(kind): \(choice)")
    }
  }

  /// What clusters the tokens of this dispatch, at most so many for a token; `nil` where none are clustered.
  var activeClusterer: TokenClusterer? {
    guard let plan = call.plan else { return clusterer }
    guard let clusterer, let rate = plan.choice.clusterRate else { return nil }
    clusterer.limit(rate: rate)
    return clusterer
  }

  /// Measures what arrives of the rows that a transfer sends.
  func measureFidelity(_ handle: DispatchHandle, tokens: RowsView?) throws(CrosspointError) {
    var watch = Stopwatch()
    try transfer.measureFidelity { rank, arrived in
      tokens.map { compare($0, with: arrived, to: rank, handle) }
    }
    statistics.seconds.policy += watch.lap()
  }

  /// The tokens that a rank gets, compared with the rows that stand for them.
  private func compare(
    _ tokens: RowsView, with arrived: [RowTarget], to rank: Int, _ handle: DispatchHandle
  ) -> Fidelity {
    var sum = Fidelity()
    for (destination, rows) in zip(destinations.served(by: rank), arrived) {
      for member in handle.source.plan.members(of: destination) {
        let token = tokens.row(handle.source.plan.memberTokens[member]).floats
        let row = rows.row(handle.source.plan.memberRows[member], hidden: layout.hidden).floats
        sum.lost += kernels.squares(token, minus: row, layout.hidden)
        sum.whole += kernels.squares(token, layout.hidden)
      }
    }
    return sum
  }
}
