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
  ///   - output: `[rows × hidden]`, in the order of `handle.rows`.
  ///   - work: see ``LocalWork``.
  /// - Returns: `[T × hidden]`.
  /// - Throws: `invalidArgument`, `handleMisuse`, `nonFinite`, `outOfMemory`, `corruptFrame`, what the work throws, and the fabric's
  ///   errors; the same on every rank.
  /// - Source: LSH-MoE, Algorithm 1, step 5 and Equation 5 (arXiv 2411.08446).
  public func combine(
    _ output: borrowing TokenBatch, _ handle: DispatchHandle,
    meanwhile work: LocalWork = { () throws(CrosspointError) in false }
  ) throws(CrosspointError) -> TokenBatch {
    transfer.begin(.combine)
    defer { transfer.end() }
    var attempt = Attempt(
      problem(handle, expects: .dispatched) ?? problem("output", output, rows: handle.rows.rows))
    var watch = Stopwatch()
    var summed: TokenBatch?
    if sharesCopies { summed = attempt { () throws(CrosspointError) in try sumOutputs(output.base, handle) } }
    var y = attempt { () throws(CrosspointError) in
      handle.source.outputs = try leaseRows(handle.source.plan.rows)
      sendFromExperts(handle, summed?.base ?? output.base)
      receiveAtHome(handle, handle.source.outputs.base)
      return try leaseRows(handle.routing.tokens)
    }
    statistics.seconds.cluster += watch.lap()

    try sample(handle, nil, &attempt)
    try send(handle, checked: checked("output", output), &attempt)
    try move(meanwhile: work, &attempt)
    try settle(handle, attempt)
    handle.stage = .combined

    watch = Stopwatch()
    let result = y.take()!
    weightedSum(handle, into: result.base)
    statistics.seconds.cluster += watch.lap()
    return result
  }

  /// Sums each token's choices into its row of `y`.
  private func weightedSum(_ handle: DispatchHandle, into y: UnsafeMutablePointer<Float>) {
    let hidden = layout.hidden
    let routing = handle.destinations
    let outputs = handle.source.outputs.base
    for token in 0..<routing.tokens {
      let sum = y + token * hidden
      var isFirst = true
      for slot in (token * routing.topK)..<((token + 1) * routing.topK) {
        let row = handle.source.plan.rowOfSlot[slot]
        guard row >= 0 else { continue }
        let weight = routing.topkWeights[slot]
        add(outputs + row * hidden, weight: weight, to: sum, isFirst: isFirst, hidden: hidden)
        isFirst = false
        if compensates(handle, row: row) {
          let (x, c) = handle.source.residual(token: token, row: row)
          compensator.add(expert: Int(routing.topkIndices[slot]), weight: weight, x: x, c: c, to: sum)
        }
      }
      if isFirst { sum.update(repeating: 0, count: hidden) }
    }
  }
}
