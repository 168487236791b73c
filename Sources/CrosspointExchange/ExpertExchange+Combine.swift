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
    var failure = problem(.combine, handle, expects: .dispatched)
    if failure == nil { failure = problem(.combine, "output", output, rows: handle.rows.rows) }
    var y: TokenBatch?
    var summed: TokenBatch?
    var watch = Stopwatch()
    if failure == nil {
      do throws(CrosspointError) {
        handle.outputs = try leaseRows(handle.plan.rows)
        y = try leaseRows(handle.tokenCount)
        if sharesCopies { summed = try sumOutputs(output.base, handle) }
      } catch {
        failure = error
      }
    }
    statistics.seconds.cluster += watch.lap()
    let base = summed?.base ?? output.base
    try run(
      .combine, handle, failure: failure, checked: checked("output", output),
      sources: { peer, groups in expertSideSources(peer, handle, base, &groups) },
      targets: { peer, groups in sourceSideTargets(peer, handle, handle.outputs.base, &groups) },
      meanwhile: work)
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
    let routing = handle.lanes
    let outputs = handle.outputs.base
    for token in 0..<routing.tokens {
      let sum = y + token * hidden
      var isFirst = true
      for slot in (token * routing.topK)..<((token + 1) * routing.topK) {
        let row = handle.plan.rowOfSlot[slot]
        guard row >= 0 else { continue }
        let weight = routing.topkWeights[slot]
        add(outputs + row * hidden, weight: weight, to: sum, isFirst: isFirst)
        isFirst = false
        if compensates(handle, row: row) {
          let (x, c) = handle.residual(token: token, row: row, hidden: hidden)
          compensator.add(expert: Int(routing.topkIndices[slot]), weight: weight, x: x, c: c, to: sum)
        }
      }
      if isFirst { sum.update(repeating: 0, count: hidden) }
    }
  }

  /// Adds a weighted row to a sum, or begins it; a weight of 1 begins it bit for bit.
  @inline(__always)
  func add(
    _ row: UnsafePointer<Float>, weight: Float, to sum: UnsafeMutablePointer<Float>, isFirst: Bool
  ) {
    switch (isFirst, weight) {
    case (true, 1): sum.update(from: row, count: layout.hidden)
    case (true, _): kernels.scale(sum, weight, row, layout.hidden)
    case (false, _): kernels.axpy(sum, weight, row, layout.hidden)
    }
  }

  /// Uninitialised rows from the pool.
  func leaseRows(_ rows: Int) throws(CrosspointError) -> TokenBatch {
    try TokenBatch(uninitializedRows: rows, hidden: layout.hidden, pool: pool)
  }
}
