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
    var failure = problem(.combineBackward, handle, expects: .combined)
    if failure == nil {
      failure =
        problem(.combineBackward, "outputGradient", outputGradient, rows: handle.tokenCount)
        ?? checked("outputGradient", outputGradient)?.problem(.combineBackward, rank: fabric.rank)
    }
    var received: TokenBatch?
    var copies: TokenBatch?
    var watch = Stopwatch()
    if failure == nil {
      do throws(CrosspointError) {
        let rowGradients = try leaseRows(handle.plan.rows)
        differentiateSum(handle, outputGradient.base, into: rowGradients.base)
        handle.rowGradients = consume rowGradients
        if compensates(handle) { handle.outputGradients = try copy(outputGradient) }
        received = try leaseRows(handle.rowsReceived)
        if sharesCopies {
          copies = try leaseRows(handle.rows.rows)
          handle.shareGradients = try TokenBatch(uninitializedRows: handle.marks.pairs, hidden: 1, pool: pool)
        }
      } catch {
        failure = error
      }
    }
    statistics.seconds.cluster += watch.lap()
    let base = received?.base
    if failure == nil { handle.roundingStep = gradientSteps }
    gradientSteps += 1
    try run(
      .combineBackward, handle, failure: failure,
      sources: { peer, groups in sourceSideSources(peer, handle, handle.rowGradients.base, &groups) },
      targets: { peer, groups in expertSideTargets(peer, handle, base!, &groups) },
      meanwhile: work)
    handle.stage = .combineBackwarded
    handle.outputs = TokenBatch(emptyOfHidden: layout.hidden, pool: pool)
    guard let gradients = copies.take() else { return received.take()! }
    watch = Stopwatch()
    differentiateOutputs(base!, handle, into: gradients.base)
    statistics.seconds.cluster += watch.lap()
    handle.pairOutputs = TokenBatch(emptyOfHidden: layout.hidden, pool: pool)
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
    var failure = problem(.dispatchBackward, handle, expects: .combineBackwarded)
    if failure == nil { failure = problem(.dispatchBackward, "rowGradient", rowGradient, rows: handle.rows.rows) }
    var returned: TokenBatch?
    var tokenGradient: TokenBatch?
    var summed: TokenBatch?
    var watch = Stopwatch()
    if failure == nil {
      do throws(CrosspointError) {
        returned = try leaseRows(handle.plan.rows)
        tokenGradient = try leaseRows(handle.tokenCount)
        if sharesCopies {
          summed = try sumGradients(rowGradient.base, handle)
          try writeShareGradients(handle)
        }
      } catch {
        failure = error
      }
    }
    statistics.seconds.cluster += watch.lap()
    let base = summed?.base ?? rowGradient.base
    let returnedBase = returned?.base
    try run(
      .dispatchBackward, handle, failure: failure, checked: checked("rowGradient", rowGradient),
      sources: { peer, groups in expertSideSources(peer, handle, base, &groups) },
      targets: { peer, groups in sourceSideTargets(peer, handle, returnedBase!, &groups) },
      completed: { () throws(CrosspointError) in try takeShareGradients(handle) }, meanwhile: work)
    handle.stage = .finished

    watch = Stopwatch()
    let result = tokenGradient.take()!
    differentiateRows(handle, returnedBase!)
    gatherGradients(handle, returnedBase!, into: result.base)
    statistics.seconds.cluster += watch.lap()
    return result
  }

  /// S_j, ∂L/∂w and ∂L/∂A from ∂L/∂y.
  private func differentiateSum(
    _ handle: DispatchHandle, _ dy: UnsafePointer<Float>, into sums: UnsafeMutablePointer<Float>
  ) {
    let hidden = layout.hidden
    let routing = handle.lanes
    let outputs = handle.outputs.base
    handle.topkWeightGradients.resize(routing.topkIndices.count)
    for slot in routing.topkIndices.indices {
      let row = handle.plan.rowOfSlot[slot]
      guard row >= 0 else {
        handle.topkWeightGradients[slot] = 0
        continue
      }
      let token = slot / routing.topK
      let weight = routing.topkWeights[slot]
      let gradient = dy + token * hidden
      if handle.plan.firstSlot[row] == slot {
        kernels.scale(sums + row * hidden, weight, gradient, hidden)
      } else {
        kernels.axpy(sums + row * hidden, weight, gradient, hidden)
      }
      var weightGradient = kernels.dot(gradient, outputs + row * hidden, hidden)
      if compensates(handle, row: row) {
        let (x, c) = handle.residual(token: token, row: row, hidden: hidden)
        weightGradient += compensator.differentiate(
          expert: Int(routing.topkIndices[slot]), weight: weight, dy: gradient, x: x, c: c)
      }
      handle.topkWeightGradients[slot] = weightGradient
    }
  }

  /// Turns v_j into (v_j − Aᵀ S_j) / n_j, the part of ∂L/∂x that a row's members share, in place.
  private func differentiateRows(_ handle: DispatchHandle, _ rows: UnsafeMutablePointer<Float>) {
    guard handle.isClustered else { return }
    let hidden = layout.hidden
    let sums = handle.rowGradients.base
    for expert in 0..<lanes.experts {
      // What a lone member shares is v_j itself.
      for row in handle.plan.rows(of: expert) where handle.plan.counts[row] > 1 {
        let shared = rows + row * hidden
        if compensates(handle) {
          compensator.addAdjoint(expert: expert, weight: -1, of: sums + row * hidden, to: shared)
        }
        kernels.scale(shared, 1 / Float(handle.plan.counts[row]), shared, hidden)
      }
    }
  }

  /// ∂L/∂x_i: the shared parts of the rows that token i joined, and its own residual's.
  private func gatherGradients(
    _ handle: DispatchHandle, _ rows: UnsafePointer<Float>, into dx: UnsafeMutablePointer<Float>
  ) {
    let hidden = layout.hidden
    let routing = handle.lanes
    for token in 0..<routing.tokens {
      let gradient = dx + token * hidden
      var isFirst = true
      for slot in (token * routing.topK)..<((token + 1) * routing.topK) {
        let row = handle.plan.rowOfSlot[slot]
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
            of: handle.outputGradients.base + token * hidden, to: gradient)
        }
      }
      if isFirst { gradient.update(repeating: 0, count: hidden) }
    }
  }
}
