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
  /// Fills `handle.topkWeightGradients`, which with shared copies are complete only after
  /// ``dispatchBackward(_:_:meanwhile:)``, and adds to the gradients of ``compensator``.
  /// - Parameters:
  ///   - outputGradient: ∂L/∂y, `[T × hidden]`. Rows of tokens that were sent nowhere need not be finite.
  ///   - work: see ``LocalWork``.
  /// - Returns: ∂L/∂output, `[rows × hidden]`, in the order of `handle.rows`.
  /// - Throws: as ``combine(_:_:meanwhile:)``.
  public func combineBackward(
    _ outputGradient: borrowing TokenBatch, _ handle: DispatchHandle,
    meanwhile work: LocalWork = { () throws(CrosspointError) in false }
  ) throws(CrosspointError) -> TokenBatch {
    try finishCombineBackward(beginCombineBackward(outputGradient, handle, after: nil), meanwhile: work)
  }

  /// Begins a combineBackward, to be finished later; see ``beginDispatch(_:_:labels:)``. Collective.
  public func beginCombineBackward(
    _ outputGradient: borrowing TokenBatch, _ handle: DispatchHandle
  ) throws(CrosspointError) -> PendingRows {
    PendingRows(self, try beginCombineBackward(outputGradient, handle, after: nil))
  }

  /// - Parameters:
  ///   - isInWaves: whether this rank's experts work in waves.
  ///   - failure: what is wrong on this rank already.
  package func beginCombineBackward(
    _ outputGradient: borrowing TokenBatch, _ handle: DispatchHandle, inWaves isInWaves: Bool = false,
    after failure: CrosspointError?
  ) throws(CrosspointError) -> TransferCall {
    try begin(.combineBackward, handle, after: failure) { call throws(CrosspointError) in
      transfer.isInWaves = isInWaves
      transfer.format = transferFormat(.combineBackward)
      // Sums over clusters are needed once more, and a policy samples them before they are sent.
      let writesSums = policy == nil && !handle.source.isClustered
      let keepsSums = !writesSums || !transfer.isAllDirect
      var attempt = Attempt(
        call.failure ?? problem(handle, expects: .combined)
          ?? problem("outputGradient", outputGradient, rows: handle.routing.tokens))
      let batch = checked("outputGradient", outputGradient)
      if keepsSums {
        if !attempt.hasFailed { attempt.fail(batch?.problem(.combineBackward, rank: fabric.rank)) }
      } else {
        // Each row is looked at when it is read.
        transfer.checked = batch
      }
      var watch = Stopwatch()
      let dy = outputGradient.view
      (call.input, call.writesSums) = (dy, writesSums)
      attempt { () throws(CrosspointError) in
        handle.source.rowGradients = try leaseRows(keepsSums ? handle.source.plan.rows : 0, transfer.homeType)
        let sums = handle.source.rowGradients.view
        if keepsSums {
          try differentiateSum(handle, dy, weights: false) { row, destination in
            writesSums && isDirect(destination) ? nil : sums.row(row)
          }
        }
        if compensates(handle) { handle.source.outputGradients = try copy(outputGradient) }
        sendFromHome(handle, sums.first)
        handle.roundingStep = gradientSteps
      }
      attempt { () throws(CrosspointError) in call.result = try leaseRows(handle.received.total, options.rows) }
      if sharesCopies, nodeExchange == nil {
        call.copies = attempt { () throws(CrosspointError) in try roomForOutputGradients(handle) }
      }
      gradientSteps += 1
      statistics.seconds.cluster += watch.lap()

      if let policy { try prepare(policy, handle, nil, &attempt) }
      try encode(handle, &attempt)
      try announce(call, &attempt) { () throws(CrosspointError) in receiveAtExperts(handle, call.result.view.first) }
    }
  }

  func finishCombineBackward(
    _ call: TransferCall, meanwhile work: LocalWork,
    waves: (borrowing TokenBatch, ExpertWave) throws(CrosspointError) -> Void = { _, _ throws(CrosspointError) in }
  ) throws(CrosspointError) -> TokenBatch {
    try finish(call) { handle, attempt throws(CrosspointError) in
      func wave() throws(CrosspointError) -> Bool {
        try doWave(handle) { wave throws(CrosspointError) in
          if sharesCopiesInWaves { try waves(call.returned, wave) } else { try waves(call.result, wave) }
        }
      }
      try hear(meanwhile: work, &attempt) { () throws(CrosspointError) in
        receiveAtExperts(handle, call.result.view.first)
      }
      if sharesCopiesInWaves { spreadCopies(handle) }
      attempt { () throws(CrosspointError) in try beginWaves(handle) }
      let (dy, writesSums) = (call.input!, call.writesSums)
      // Outputs that lie with their experts can be read until the vote.
      func differentiate() throws(CrosspointError) {
        if writesSums { find(&places, handle, handle.source.rowGradients.view.first, inNode: true) }
        try differentiateSum(handle, dy, weights: true) { row, destination in
          writesSums && places.isElsewhere(destination) ? places.row(row, of: destination, hidden: layout.hidden) : nil
        }
      }
      try move(
        writing: { () throws(CrosspointError) in
          if writesSums { try differentiate() }
          return writesSums
        }, meanwhile: work, waves: wave, &attempt)
      // As part of the moving phase it has been timed there.
      var watch = Stopwatch()
      if !writesSums {
        attempt { () throws(CrosspointError) in try differentiate() }
        statistics.seconds.cluster += watch.lap()
      }
      try settle(handle, attempt)

      defer {
        handle.source.outputs = TokenBatch(emptyOfHidden: layout.hidden, pool: pool)
        handle.outputRows = TokenBatch(emptyOfHidden: layout.hidden, pool: pool)
      }
      if let nodeExchange {
        let rows = call.takeResult()
        call.result = try differentiateOutputsWithinNode(nodeExchange, rows, handle)
      }
      try endWaves(handle, wave, &attempt)
      let rows = call.takeResult()
      if attempt.hasFailed {
        rows.clear()
        handle.topkWeightGradients.refill(with: 0, count: handle.routing.topkIndices.count)
      }
      if sharesCopiesInWaves {
        if attempt.hasFailed { call.returned.clear() }
        return call.takeReturned()
      }
      guard let gradients = call.copies.take() else { return rows }
      watch = Stopwatch()
      handle.copies!.differentiate(rows, 0..<rows.rows, into: gradients.base)
      statistics.seconds.cluster += watch.lap()
      return gradients
    }
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
    try dispatchBackward(rowGradient, handle, after: nil, meanwhile: work)
  }

  /// Begins a dispatchBackward, to be finished later; see ``beginDispatch(_:_:labels:)``. Collective.
  public func beginDispatchBackward(
    _ rowGradient: borrowing TokenBatch, _ handle: DispatchHandle
  ) throws(CrosspointError) -> PendingRows {
    PendingRows(self, try beginDispatchBackward(rowGradient, handle, after: nil))
  }

  /// - Parameter failure: what is wrong on this rank already.
  func dispatchBackward(
    _ rowGradient: borrowing TokenBatch, _ handle: DispatchHandle, after failure: CrosspointError?,
    meanwhile work: LocalWork = { () throws(CrosspointError) in false }
  ) throws(CrosspointError) -> TokenBatch {
    try finishDispatchBackward(beginDispatchBackward(rowGradient, handle, after: failure), meanwhile: work)
  }

  /// ``dispatchBackward(_:_:meanwhile:)`` into rows of the caller's, `[T × hidden]`; undefined after an error. Collective.
  public func dispatchBackward(
    _ rowGradient: borrowing TokenBatch, _ handle: DispatchHandle, into result: borrowing TokenBatch,
    meanwhile work: LocalWork = { () throws(CrosspointError) in false }
  ) throws(CrosspointError) {
    _ = try finishDispatchBackward(
      beginDispatchBackward(rowGradient, handle, into: result.view, after: nil), meanwhile: work)
  }

  /// The same, to be finished later; see ``beginDispatch(_:_:labels:)``. Collective.
  public func beginDispatchBackward(
    _ rowGradient: borrowing TokenBatch, _ handle: DispatchHandle, into result: borrowing TokenBatch
  ) throws(CrosspointError) -> PendingRows {
    PendingRows(self, try beginDispatchBackward(rowGradient, handle, into: result.view, after: nil))
  }

  /// - Parameter result: memory for the sums; `nil`: the exchange's.
  package func beginDispatchBackward(
    _ rowGradient: borrowing TokenBatch, _ handle: DispatchHandle,
    into result: RowsView? = nil, after failure: CrosspointError?
  ) throws(CrosspointError) -> TransferCall {
    try begin(.dispatchBackward, handle, after: failure) { call throws(CrosspointError) in
      transfer.checked = checked("rowGradient", rowGradient)
      var attempt = Attempt(
        call.failure ?? problem(handle, expects: .combineBackwarded)
          ?? problem("rowGradient", rowGradient, rows: handle.rows.rows))
      if let nodeExchange { try sumGradientsWithinNode(nodeExchange, rowGradient, handle, after: attempt.failure) }
      var watch = Stopwatch()
      if sharesCopies {
        attempt { () throws(CrosspointError) in
          if nodeExchange != nil { try takeShareGradientsWithinNode(handle) }
          try writeShareGradients(handle)
          if nodeExchange == nil { try sumGradients(rowGradient.base, handle) }
        }
      }
      if !attempt.hasFailed {
        let rows = sharesCopies ? handle.copies!.sums.view : rowGradient.view
        sendFromExperts(handle, rows.first)
        // Compensation changes what comes home.
        if !compensates(handle) { transfer.offered = rows }
      }
      statistics.seconds.cluster += watch.lap()

      if let policy { try prepare(policy, handle, nil, &attempt) }
      try encode(handle, &attempt)
      attempt { () throws(CrosspointError) in
        call.result = try room(result, rows: handle.routing.tokens)
      }
      try announce(call, &attempt) { () throws(CrosspointError) in try makeRoomForGradients(call, handle) }
    }
  }

  private func makeRoomForGradients(_ call: TransferCall, _ handle: DispatchHandle) throws(CrosspointError) {
    call.returned = try leaseRows(readsAll ? 0 : handle.source.plan.rows, transfer.homeType)
    receiveAtHome(handle, call.returned.view.first)
  }

  func finishDispatchBackward(_ call: TransferCall, meanwhile work: LocalWork) throws(CrosspointError) -> TokenBatch {
    try finish(call) { handle, attempt throws(CrosspointError) in
      try hear(meanwhile: work, &attempt) { () throws(CrosspointError) in try makeRoomForGradients(call, handle) }
      try move(meanwhile: work, &attempt)
      // Those of the ranks' weights stay until the vote, so that a call that fails can be made again.
      let weights = sharesCopies ? attempt { () throws(CrosspointError) in try weightGradients(handle) } : nil
      let result = call.takeResult()
      let returned = call.returned.view
      // As in combine: rows are read before the vote, or are there after it.
      let isEarly = transfer.readsInPlace
      if isEarly { attempt { () throws(CrosspointError) in try gatherGradients(handle, returned, into: result.view) } }
      try settle(handle, attempt)
      if attempt.hasFailed {
        result.clear()
      } else if !isEarly {
        try gatherGradients(handle, returned, into: result.view)
      }
      if let weights {
        _ = handle.topkWeightGradients.withUnsafeMutableBufferPointer { $0.update(fromContentsOf: weights.elements) }
      }
      return result
    }
  }

  /// ``dispatchBackward(_:_:meanwhile:)`` of what the experts have written to ``DispatchHandle/rowGradients()``. Collective.
  public func dispatchBackward(
    _ handle: DispatchHandle, meanwhile work: LocalWork = { () throws(CrosspointError) in false }
  ) throws(CrosspointError) -> TokenBatch {
    try dispatchBackward(TokenBatch(viewing: handle.holder.gradientRows), handle, meanwhile: work)
  }

  private func isDirect(_ destination: Int) -> Bool {
    transfer.route(destinations.rank(of: destination)) == .direct
  }

  /// From ∂L/∂y the sums S_j of the rows for which there is a place, and, if they are asked for, ∂L/∂w and ∂L/∂A.
  /// - Throws: `nonFinite`, if the transfer checks its batch.
  private func differentiateSum(
    _ handle: DispatchHandle, _ dy: RowsView, weights: Bool,
    into place: (_ row: Int, _ destination: Int) -> RowPointer?
  ) throws(CrosspointError) {
    let hidden = layout.hidden
    let routing = handle.destinations
    if weights { handle.topkWeightGradients.resize(routing.topkIndices.count) }
    let (transfer, isChecked, isCompensated) = (transfer, transfer.checked != nil, compensates(handle))
    let (rowOfSlot, firstSlot) = (handle.source.plan.rowOfSlot.base, handle.source.plan.firstSlot.base)
    let outputs = handle.outputsAtHome
    let (wideGradient, wideRow) = (transfer.codec.scratchRow(0), transfer.codec.scratchRow(1))
    var (lastToken, gradient) = (-1, UnsafePointer(wideGradient))
    try handle.topkWeightGradients.withUnsafeMutableBufferPointer { weightGradients throws(CrosspointError) in
      for slot in routing.topkIndices.indices {
        let row = Int(rowOfSlot[slot])
        guard row >= 0 else {
          if weights { weightGradients[slot] = 0 }
          continue
        }
        let token = slot / routing.topK
        let (weight, destination) = (routing.topkWeights[slot], Int(routing.topkIndices[slot]))
        if token != lastToken {
          if isChecked { try transfer.check(dy.row(token)) }
          gradient = dy.row(token).floats(hidden, scratch: wideGradient)
          lastToken = token
        }
        if let sum = place(row, destination) {
          if Int(firstSlot[row]) != slot {
            kernels.axpy(sum.floats, weight, gradient, hidden)
          } else if sum.type.isFloat {
            kernels.scale(sum.floats, weight, gradient, hidden)
          } else {
            kernels.scale(wideRow, weight, gradient, hidden)
            sum.store(UnsafePointer(wideRow), hidden)
          }
        }
        guard weights else { continue }
        let output = outputs.row(row, of: destination, hidden: hidden).floats(hidden, scratch: wideRow)
        weightGradients[slot] = kernels.dot(gradient, output, hidden)
        if isCompensated, handle.source.plan.counts[row] > 1 {
          let (x, c) = handle.source.residual(token: token, row: row)
          weightGradients[slot] += compensator.differentiate(
            expert: destination, weight: weight, dy: gradient, x: x, c: c)
        }
      }
    }
  }

  /// Turns v_j into v_j − Aᵀ S_j, in place, where residuals are compensated; a lone member has none.
  private func addCompensation(_ handle: DispatchHandle, _ rows: RowsView) {
    guard compensates(handle) else { return }
    let hidden = layout.hidden
    let sums = handle.source.rowGradients.base
    for expert in 0..<destinations.count {
      for row in handle.source.plan.rows(of: expert) where handle.source.plan.counts[row] > 1 {
        compensator.addAdjoint(expert: expert, weight: -1, of: sums + row * hidden, to: rows.row(row).floats)
      }
    }
  }

  /// ∂L/∂x_i: an equal share of each row that token i joined, and its own residual's.
  private func gatherGradients(
    _ handle: DispatchHandle, _ rows: RowsView, into dx: RowsView
  ) throws(CrosspointError) {
    var watch = Stopwatch()
    defer { statistics.seconds.cluster += watch.lap() }
    addCompensation(handle, rows)
    find(&places, handle, rows.first, inNode: transfer.readsInPlace)
    let routing = handle.destinations
    try sumRows(places, handle, "rowGradient", into: dx) { _, row in
      1 / Float(handle.source.plan.counts[row])
    } residual: { slot, row, sum in
      guard compensates(handle, row: row) else { return }
      compensator.addAdjoint(
        expert: Int(routing.topkIndices[slot]), weight: routing.topkWeights[slot],
        of: handle.source.outputGradients.base + slot / routing.topK * layout.hidden, to: sum)
    }
  }
}
