import CrosspointCore
import CrosspointTokens

/// One copy per rank, where the experts are: each row is handed to those that it is marked for, and what they make of it
/// is summed, weighted, before it goes home.
extension ExpertExchange {
  /// Hands the rows that arrived to the experts: `handle.rows` becomes a row per pair, grouped by expert.
  func fanOut(_ handle: DispatchHandle) throws(CrosspointError) {
    guard sharesCopies else {
      handle.rowsPerExpert.resize(localExperts.count)
      for local in 0..<localExperts.count { handle.rowsPerExpert[local] = handle.rowsPerLane[local] }
      return
    }
    try readMarks(handle)
    let rows = handle.rows.rows
    try handle.places.resize(handle.marks.pairs)
    handle.rowsPerExpert.resize(localExperts.count)
    handle.expertStart.resize(localExperts.count)
    for local in 0..<localExperts.count { handle.rowsPerExpert[local] = 0 }
    for row in 0..<rows {
      handle.marks.forEachPair(of: row) { _, expert in handle.rowsPerExpert[expert] += 1 }
    }
    var start = 0
    for local in 0..<localExperts.count {
      handle.expertStart[local] = start
      start += handle.rowsPerExpert[local]
    }
    let copies = try leaseRows(handle.marks.pairs)
    let hidden = layout.hidden
    for row in 0..<rows {
      handle.marks.forEachPair(of: row) { pair, expert in
        let place = handle.expertStart[expert]
        handle.expertStart[expert] = place + 1
        handle.places[pair] = place
        (copies.base + place * hidden).update(from: handle.rows.base + row * hidden, count: hidden)
      }
    }
    handle.rows = consume copies
  }

  /// The marks of every row that arrived, with their weights.
  private func readMarks(_ handle: DispatchHandle) throws(CrosspointError) {
    let isRounded = handle.roundsShares
    try handle.marks.start(rows: handle.rows.rows)
    for peer in 0..<fabric.rankCount {
      guard
        handle.marks.readBits(
          handle.rows(from: peer), from: UnsafeRawBufferPointer(transfer.sideIn[peer]), experts: localExperts.count)
      else { throw corruptMarks(.dispatch, peer, "rows are marked for experts that are not there") }
    }
    try handle.marks.number()
    for peer in 0..<fabric.rankCount {
      let rows = handle.rows(from: peer)
      let (block, bits) = (UnsafeRawBufferPointer(transfer.sideIn[peer]), handle.marks.bitBytes(rows: rows.count))
      let weights = handle.marks.weights(of: rows)
      guard block.count == bits + PairNumbers.bytes(weights.count, isRounded: isRounded) else {
        throw corruptMarks(.dispatch, peer, "\(block.count) bytes for \(rows.count) rows and \(weights.count) marks")
      }
      PairNumbers.read(weights, isRounded: isRounded, from: UnsafeRawBufferPointer(rebasing: block[bits...]))
    }
  }

  /// The weighted sum of what the experts made of each row: what goes home. Keeps the outputs themselves.
  func sumOutputs(_ output: UnsafePointer<Float>, _ handle: DispatchHandle) throws(CrosspointError) -> TokenBatch {
    let outputs = try leaseRows(handle.marks.pairs)
    let kept = outputs.base
    let hidden = layout.hidden
    handle.pairOutputs = consume outputs
    return try sum(output, handle) { pair, output in
      // Copied while it is in the cache.
      (kept + pair * hidden).update(from: output, count: hidden)
      return handle.marks.weights.base[pair]
    }
  }

  /// The sum of the gradients of each row's copies.
  func sumGradients(_ gradient: UnsafePointer<Float>, _ handle: DispatchHandle) throws(CrosspointError) -> TokenBatch {
    try sum(gradient, handle) { _, _ in 1 }
  }

  private func sum(
    _ rows: UnsafePointer<Float>, _ handle: DispatchHandle,
    _ weight: (_ pair: Int, _ source: UnsafePointer<Float>) -> Float
  ) throws(CrosspointError) -> TokenBatch {
    let hidden = layout.hidden
    let sums = try leaseRows(handle.rowsReceived)
    for row in 0..<sums.rows {
      let (sum, pairs) = (sums.base + row * hidden, handle.marks.pairs(of: row))
      if pairs.isEmpty { sum.update(repeating: 0, count: hidden) }
      for pair in pairs {
        let source = rows + handle.places[pair] * hidden
        add(source, weight: weight(pair, source), to: sum, isFirst: pair == pairs.lowerBound)
      }
    }
    return sums
  }

  /// ∂L/∂output of each copy from that of its row; keeps what the shares' gradients are, ⟨gradient, output⟩.
  func differentiateOutputs(
    _ rows: UnsafePointer<Float>, _ handle: DispatchHandle, into gradients: UnsafeMutablePointer<Float>
  ) {
    let hidden = layout.hidden
    for row in 0..<handle.rowsReceived {
      for pair in handle.marks.pairs(of: row) {
        let place = handle.places[pair] * hidden
        kernels.scale(gradients + place, handle.marks.weights.base[pair], rows + row * hidden, hidden)
        handle.shareGradients.base[pair] = kernels.dot(
          rows + row * hidden, handle.pairOutputs.base + pair * hidden, hidden)
      }
    }
  }

  /// Writes the shares' gradients beside the rows that go home.
  func writeShareGradients(_ handle: DispatchHandle) throws(CrosspointError) {
    let isRounded = handle.roundsShares
    func pairs(_ peer: Int) -> Range<Int> { handle.marks.pairs(of: handle.rows(from: peer)) }
    try transfer.sideOut.layOut { PairNumbers.bytes(pairs($0).count, isRounded: isRounded) }
    for peer in 0..<fabric.rankCount {
      PairNumbers.write(
        UnsafeBufferPointer(rebasing: handle.shareGradients.elements[pairs(peer)]), isRounded: isRounded,
        to: transfer.sideOut[peer])
    }
  }
}
