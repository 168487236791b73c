import CrosspointCompression
import CrosspointCore
import CrosspointRouting
import CrosspointTokens

/// The exact adjoint of the forward that ran, clusters included; the bucket map is a constant.
///
/// With u_ik = w_ik ∂L/∂y_i, and S_j the sum of u over the members of row j:
///
///     ∂L/∂w_ik = ⟨∂L/∂y_i, o_j + A (x_i − c_j)⟩        ∂L/∂o_j = S_j
///     ∂L/∂A_e  = Σ u_ik (x_i − c_j)ᵀ                   ∂L/∂x_i = Σ_k Aᵀ u_ik + (v_j − Aᵀ S_j) / n_j
///
/// where v_j is what the expert's own backward gives for row j.
extension ExpertExchange {
  /// Sends `∂L/∂o` to the experts. Collective.
  ///
  /// Fills `handle.topkWeightGradients`, which with one copy per rank are complete only after
  /// ``dispatchBackward(_:_:meanwhile:)``, and adds to the gradients of ``compensator``.
  /// - Parameters:
  ///   - outputGradient: ∂L/∂y, `[T × hidden]`.
  ///   - work: see ``LocalWork``.
  /// - Returns: ∂L/∂output, `[rows × hidden]`, in the order of `handle.rows`.
  /// - Throws: as ``combine(_:_:meanwhile:)``.
  public func combineBackward(
    _ outputGradient: borrowing TokenBatch, _ handle: DispatchHandle,
    meanwhile work: LocalWork = { () throws(CrosspointError) in false }
  ) throws(CrosspointError) -> TokenBatch {
    transfer.begin(.combineBackward)
    defer { transfer.end() }
    var attempt = Attempt(
      problem(handle, expects: .combined)
        ?? problem("outputGradient", outputGradient, rows: handle.routing.tokens)
        ?? checked("outputGradient", outputGradient)?.problem(.combineBackward, rank: fabric.rank))
    var watch = Stopwatch()
    var received = attempt { () throws(CrosspointError) in
      handle.source.rowGradients = try leaseRows(handle.source.plan.rows)
      differentiateSum(handle, outputGradient.base, into: handle.source.rowGradients.base)
      if compensates(handle) { handle.source.outputGradients = try copy(outputGradient) }
      let received = try leaseRows(handle.received.total)
      sendFromHome(handle, handle.source.rowGradients.base)
      receiveAtExperts(handle, received.base)
      handle.roundingStep = gradientSteps
      return received
    }
    var copies: TokenBatch?
    if sharesCopies { copies = attempt { () throws(CrosspointError) in try roomForOutputGradients(handle) } }
    gradientSteps += 1
    statistics.seconds.cluster += watch.lap()

    try sample(handle, nil, &attempt)
    try send(handle, checked: nil, &attempt)
    try move(meanwhile: work, &attempt)
    try settle(handle, attempt)
    handle.stage = .combineBackwarded

    let rows = received.take()!
    handle.source.outputs = TokenBatch(emptyOfHidden: layout.hidden, pool: pool)
    guard let gradients = copies.take() else { return rows }
    watch = Stopwatch()
    differentiateOutputs(rows.base, handle, into: gradients.base)
    statistics.seconds.cluster += watch.lap()
    return gradients
  }

  /// Brings the experts' input gradients home. Collective.
  ///
  /// - Parameters:
  ///   - rowGradient: ∂L/∂rows as the experts' backward gives it, `[rows × hidden]`.
  ///   - work: see ``LocalWork``.
  /// - Returns: ∂L/∂tokens, `[T × hidden]`; zeros for tokens that were sent nowhere.
  /// - Throws: as ``combine(_:_:meanwhile:)``.
  public func dispatchBackward(
    _ rowGradient: borrowing TokenBatch, _ handle: DispatchHandle,
    meanwhile work: LocalWork = { () throws(CrosspointError) in false }
  ) throws(CrosspointError) -> TokenBatch {
    transfer.begin(.dispatchBackward)
    defer { transfer.end() }
    var attempt = Attempt(
      problem(handle, expects: .combineBackwarded) ?? problem("rowGradient", rowGradient, rows: handle.rows.rows))
    var watch = Stopwatch()
    var summed: TokenBatch?
    if sharesCopies {
      summed = attempt { () throws(CrosspointError) in
        try writeShareGradients(handle)
        return try sumGradients(rowGradient.base, handle)
      }
    }
    var returned = attempt { () throws(CrosspointError) in
      let returned = try leaseRows(handle.source.plan.rows)
      sendFromExperts(handle, summed?.base ?? rowGradient.base)
      receiveAtHome(handle, returned.base)
      return returned
    }
    var tokenGradient = attempt { () throws(CrosspointError) in try leaseRows(handle.routing.tokens) }
    statistics.seconds.cluster += watch.lap()

    try sample(handle, nil, &attempt)
    try send(handle, checked: checked("rowGradient", rowGradient), &attempt)
    try move(meanwhile: work, &attempt)
    if sharesCopies { attempt { () throws(CrosspointError) in try takeShareGradients(handle) } }
    try settle(handle, attempt)
    handle.stage = .finished

    watch = Stopwatch()
    let rows = returned.take()!
    let result = tokenGradient.take()!
    differentiateRows(handle, rows.base)
    gatherGradients(handle, rows.base, into: result.base)
    statistics.seconds.cluster += watch.lap()
    return result
  }

  /// S_j, ∂L/∂w and ∂L/∂A from ∂L/∂y.
  private func differentiateSum(
    _ handle: DispatchHandle, _ dy: UnsafePointer<Float>, into sums: UnsafeMutablePointer<Float>
  ) {
    let hidden = layout.hidden
    let routing = handle.destinations
    let outputs = handle.source.outputs.base
    handle.topkWeightGradients.resize(routing.topkIndices.count)
    for slot in routing.topkIndices.indices {
      let row = handle.source.plan.rowOfSlot[slot]
      guard row >= 0 else {
        handle.topkWeightGradients[slot] = 0
        continue
      }
      let token = slot / routing.topK
      let weight = routing.topkWeights[slot]
      let gradient = dy + token * hidden
      if handle.source.plan.firstSlot[row] == slot {
        kernels.scale(sums + row * hidden, weight, gradient, hidden)
      } else {
        kernels.axpy(sums + row * hidden, weight, gradient, hidden)
      }
      var weightGradient = kernels.dot(gradient, outputs + row * hidden, hidden)
      if compensates(handle, row: row) {
        let (x, c) = handle.source.residual(token: token, row: row)
        weightGradient += compensator.differentiate(
          expert: Int(routing.topkIndices[slot]), weight: weight, dy: gradient, x: x, c: c)
      }
      handle.topkWeightGradients[slot] = weightGradient
    }
  }

  /// Turns v_j into (v_j − Aᵀ S_j) / n_j, the part of ∂L/∂x that a row's members share, in place.
  private func differentiateRows(_ handle: DispatchHandle, _ rows: UnsafeMutablePointer<Float>) {
    guard handle.source.isClustered else { return }
    let hidden = layout.hidden
    let sums = handle.source.rowGradients.base
    for expert in 0..<destinations.experts {
      // What a lone member shares is v_j itself.
      for row in handle.source.plan.rows(of: expert) where handle.source.plan.counts[row] > 1 {
        let shared = rows + row * hidden
        if compensates(handle) {
          compensator.addAdjoint(expert: expert, weight: -1, of: sums + row * hidden, to: shared)
        }
        kernels.scale(shared, 1 / Float(handle.source.plan.counts[row]), shared, hidden)
      }
    }
  }

  /// ∂L/∂x_i: the shared parts of the rows that token i joined, and its own residual's.
  private func gatherGradients(
    _ handle: DispatchHandle, _ rows: UnsafePointer<Float>, into dx: UnsafeMutablePointer<Float>
  ) {
    let hidden = layout.hidden
    let routing = handle.destinations
    for token in 0..<routing.tokens {
      let gradient = dx + token * hidden
      var isFirst = true
      for slot in (token * routing.topK)..<((token + 1) * routing.topK) {
        let row = handle.source.plan.rowOfSlot[slot]
        guard row >= 0 else { continue }
        if isFirst {
          gradient.update(from: rows + row * hidden, count: hidden)
        } else {
          kernels.axpy(gradient, 1, rows + row * hidden, hidden)
        }
        isFirst = false
        if compensates(handle, row: row) {
          compensator.addAdjoint(
            expert: Int(routing.topkIndices[slot]), weight: routing.topkWeights[slot],
            of: handle.source.outputGradients.base + token * hidden, to: gradient)
        }
      }
      if isFirst { gradient.update(repeating: 0, count: hidden) }
    }
  }
}
