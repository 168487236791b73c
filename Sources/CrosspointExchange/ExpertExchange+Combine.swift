import CrosspointCompression
import CrosspointCore
import CrosspointRouting
import CrosspointTokens

extension ExpertExchange {
  /// Brings the experts' outputs home and sums them, weighted: `y_i = Σ_k w_ik (o_j + A (x_i − c_j))`. Collective.
  ///
  /// o_j is the output for the row that stood for token i at its k-th expert and c_j that row; the residual term is present
  /// only with clustering and compensation. Tokens that were sent nowhere get zeros. Contributions are added in the order of k:
  /// the result is bitwise repeatable, and with one expert of weight 1 it is that expert's output bit for bit.
  ///
  /// - Parameters:
  ///   - output: `[rows × hidden]`, in the order of `handle.rows`. ``DispatchHandle/outputs()`` of the handle are read where they
  ///     lie by ranks of this node, if all of these have theirs there; others are copied.
  ///   - work: see ``LocalWork``.
  /// - Returns: `[T × hidden]`.
  /// - Throws: `invalidArgument`, `handleMisuse`, `nonFinite`, `outOfMemory`, `corruptFrame`, what the work throws, and the fabric's
  ///   errors; the same on every rank.
  /// - Source: LSH-MoE, Algorithm 1, step 5 and Equation 5 (arXiv 2411.08446).
  public func combine(
    _ output: borrowing TokenBatch, _ handle: DispatchHandle,
    meanwhile work: LocalWork = { () throws(CrosspointError) in false }
  ) throws(CrosspointError) -> TokenBatch {
    try combine(output, handle, after: nil, meanwhile: work)
  }

  /// Begins a combine, to be finished later; see ``beginDispatch(_:_:labels:)``. Collective.
  public func beginCombine(
    _ output: borrowing TokenBatch, _ handle: DispatchHandle
  ) throws(CrosspointError) -> PendingRows {
    PendingRows(self, try beginCombine(output, handle, after: nil))
  }

  /// - Parameter failure: what is wrong on this rank already.
  func combine(
    _ output: borrowing TokenBatch, _ handle: DispatchHandle, after failure: CrosspointError?,
    meanwhile work: LocalWork = { () throws(CrosspointError) in false }
  ) throws(CrosspointError) -> TokenBatch {
    try finishCombine(beginCombine(output, handle, after: failure), meanwhile: work)
  }

  /// ``combine(_:_:meanwhile:)`` into rows of the caller's, `[T × hidden]`; undefined after an error. Collective.
  public func combine(
    _ output: borrowing TokenBatch, _ handle: DispatchHandle, into result: borrowing TokenBatch,
    meanwhile work: LocalWork = { () throws(CrosspointError) in false }
  ) throws(CrosspointError) {
    _ = try finishCombine(
      beginCombine(output, handle, into: result.view, after: nil), meanwhile: work)
  }

  /// The same, to be finished later; see ``beginDispatch(_:_:labels:)``. Collective.
  public func beginCombine(
    _ output: borrowing TokenBatch, _ handle: DispatchHandle, into result: borrowing TokenBatch
  ) throws(CrosspointError) -> PendingRows {
    PendingRows(self, try beginCombine(output, handle, into: result.view, after: nil))
  }

  /// - Parameter result: memory for the sums; `nil`: the exchange's.
  package func beginCombine(
    _ output: borrowing TokenBatch, _ handle: DispatchHandle, into result: RowsView? = nil,
    after failure: CrosspointError?
  ) throws(CrosspointError) -> TransferCall {
    try begin(.combine, handle, after: failure) { call throws(CrosspointError) in
      transfer.checked = checked("output", output)
      var attempt = Attempt(
        call.failure ?? problem(handle, expects: .dispatched) ?? problem("output", output, rows: handle.rows.rows))
      if let nodeExchange { try sumOutputsWithinNode(nodeExchange, output, handle, after: attempt.failure) }
      var watch = Stopwatch()
      if sharesCopies, nodeExchange == nil { attempt { () throws(CrosspointError) in try sumOutputs(output, handle) } }
      if !attempt.hasFailed {
        let rows = sharesCopies ? handle.copies!.sums.view : output.view
        sendFromExperts(handle, rows.first)
        if sharesCopies || handle.holds(output) { transfer.offered = rows }
      }
      statistics.seconds.cluster += watch.lap()

      if let policy { try prepare(policy, handle, nil, &attempt) }
      try encode(handle, &attempt)
      attempt { () throws(CrosspointError) in
        call.result = try room(result, rows: handle.routing.tokens)
      }
      try announce(call, &attempt) { () throws(CrosspointError) in try makeRoomAtHome(handle) }
    }
  }

  private func makeRoomAtHome(_ handle: DispatchHandle) throws(CrosspointError) {
    handle.source.outputs = try leaseRows(readsAll ? 0 : handle.source.plan.rows, transfer.homeType)
    receiveAtHome(handle, handle.source.outputs.view.first)
  }

  func finishCombine(_ call: TransferCall, meanwhile work: LocalWork) throws(CrosspointError) -> TokenBatch {
    try finish(call) { handle, attempt throws(CrosspointError) in
      try hear(meanwhile: work, &attempt) { () throws(CrosspointError) in try makeRoomAtHome(handle) }
      try move(meanwhile: work, &attempt)
      let result = call.takeResult()
      // What others still write here is there after the vote; what is read in their memory must be read before it.
      let isEarly = transfer.readsInPlace
      if isEarly { attempt { () throws(CrosspointError) in try weightedSum(handle, into: result.view) } }
      try settle(handle, attempt)
      if attempt.hasFailed {
        result.clear()
      } else if !isEarly {
        try weightedSum(handle, into: result.view)
      }
      return result
    }
  }

  /// ``combine(_:_:meanwhile:)`` of the outputs that the experts have written to ``DispatchHandle/outputs()``. Collective.
  public func combine(
    _ handle: DispatchHandle, meanwhile work: LocalWork = { () throws(CrosspointError) in false }
  ) throws(CrosspointError) -> TokenBatch {
    try combine(TokenBatch(viewing: handle.holder.outputRows), handle, meanwhile: work)
  }

  /// Sums each token's choices into its row of `y`.
  private func weightedSum(_ handle: DispatchHandle, into y: RowsView) throws(CrosspointError) {
    var watch = Stopwatch()
    defer { statistics.seconds.cluster += watch.lap() }
    find(&handle.outputsAtHome, handle, handle.source.outputs.view.first, inNode: transfer.readsInPlace)
    let routing = handle.destinations
    try sumRows(handle.outputsAtHome, handle, "output", into: y) { slot, _ in
      routing.topkWeights[slot]
    } residual: { slot, row, sum in
      guard compensates(handle, row: row) else { return }
      let (x, c) = handle.source.residual(token: slot / routing.topK, row: row)
      compensator.add(
        expert: Int(routing.topkIndices[slot]), weight: routing.topkWeights[slot], x: x, c: c, to: sum)
    }
  }
}
