import CrosspointCore
import CrosspointRouting
import CrosspointTokens

/// Shared copies, where tokens come from: marks go out with the rows, gradients of weights come back with theirs.
///
/// A token i with experts e on rank r (or node r) travels there as one row, with the shares v_ie of its weight W_ir there:
///
///     W_ir = Σ |w_ie|        v_ie = w_ie / W_ir        y_i = Σ_r W_ir Σ_e v_ie E_e(x_i)
///
/// The rank sums over e and the source over r, so that weights of one token are never rounded against another's. The row of
/// a cluster of n tokens has the mean of their shares, `v_e = Σ_i v_ie / n`. Backwards, with g_e = ∂L/∂v_e:
///
///     ∂L/∂w_ie = sgn(w_ie) ∂L/∂W_ir + (g_e / n − sgn(w_ie) Σ_e' v_ie' g_e' / n) / W_ir
///
/// A token whose weights on a rank are all zero has W_ir = 1, a constant.
extension ExpertExchange {
  /// Whether one row serves all of a rank's or node's experts.
  var sharesCopies: Bool { options.copies != .perExpert }

  /// What a dispatch's rows are addressed to as ranks or nodes, in the memory of an earlier dispatch.
  func copies(of routing: Routing, _ earlier: consuming RankCopies?) -> RankCopies {
    var copies = RankCopies(
      experts: destinations.mostExperts, hidden: layout.hidden, routing: earlier?.takeRouting() ?? .none, pool: pool)
    copies.routing.regroup(routing, groups: destinations.count) { destinations.destination(of: $0) }
    return copies
  }

  /// Marks the experts of every row and writes the metadata of the rows.
  func markCopies(_ handle: DispatchHandle) throws(CrosspointError) {
    try handle.copies!.mark(handle.routing, handle.source.plan, destinations)
    let shares = PairNumbers(with: transferFormat(.dispatch))
    handle.copies!.shares = shares
    try transfer.metadataOut.layOut { peer in
      let rows = handle.source.plan.rows(of: destinations.served(by: peer))
      return handle.copies!.sent.bitBytes(rows: rows.count) + shares.bytes(handle.copies!.sent.pairs(of: rows).count)
    }
    for peer in 0..<fabric.rankCount {
      let rows = handle.source.plan.rows(of: destinations.served(by: peer))
      let (block, bits) = (transfer.metadataOut[peer], handle.copies!.sent.bitBytes(rows: rows.count))
      guard block.count > 0 else { continue }
      handle.copies!.sent.writeBits(rows, to: block)
      shares.write(
        UnsafeBufferPointer(handle.copies!.sent.weights(of: rows)),
        to: UnsafeMutableRawBufferPointer(rebasing: block[bits...]))
    }
  }

  /// Bytes of metadata of a transfer to other ranks, as far as they are known before its rows are: for a dispatch those of
  /// shares in bytes without clusters.
  func metadataBytes(_ kind: TransferKind, _ handle: DispatchHandle) -> Int {
    guard sharesCopies else { return 0 }
    switch kind {
    case .dispatch:
      return handle.copies!.sent.bitBytes(rows: pairsAway(handle))
        + PairNumbers.int8.bytes(routedAway(handle, from: destinations.localExperts))
    case .dispatchBackward:
      return (0..<fabric.rankCount).reduce(0) { $0 + ($1 == fabric.rank ? 0 : transfer.metadataOut[$1].count) }
    case .combine, .combineBackward: return 0
    }
  }

  /// The gradients of the router's weights, `[T · K × 1]`, from those of the shares that came home.
  func weightGradients(_ handle: DispatchHandle) throws(CrosspointError) -> TokenBatch {
    let gradients = try TokenBatch(uninitializedRows: handle.copies!.sent.pairs, hidden: 1, pool: pool)
    let shares = handle.copies!.shares
    for peer in 0..<fabric.rankCount {
      let pairs = handle.copies!.sent.pairs(of: handle.source.plan.rows(of: destinations.served(by: peer)))
      let block = transfer.metadataIn[peer]
      guard block.count == shares.bytes(pairs.count) else {
        throw corruptMarks(.dispatchBackward, peer, "\(block.count) bytes for \(pairs.count) gradients")
      }
      shares.read(UnsafeMutableBufferPointer(rebasing: gradients.elements[pairs]), from: block)
    }
    return try handle.copies!.differentiate(
      gradients.base, handle.routing, handle.source.plan, ofRanks: handle.topkWeightGradients, pool: pool)
  }

  func corruptMarks(_ kind: TransferKind, _ peer: Int, _ message: String) -> CrosspointError {
    CrosspointError(.corruptFrame, operation: "\(kind.operation)", rank: peer, argument: "marks", message)
  }
}
