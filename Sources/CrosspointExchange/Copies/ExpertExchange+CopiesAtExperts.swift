import CrosspointCore
import CrosspointTokens

/// One copy per rank, where the experts are: each row is handed to those that it is marked for, and what they make of it
/// is summed, weighted, before it goes home.
extension ExpertExchange {
  /// Hands the rows that arrived to the experts: `handle.rows` becomes a row per pair, grouped by expert.
  func fanOut(_ handle: DispatchHandle) throws(CrosspointError) {
    try readMarks(handle)
    let rows = handle.rows.rows
    try handle.copies!.places.resize(handle.copies!.marks.pairs)
    try handle.copies!.expertStart.resize(localExperts.count)
    for local in 0..<localExperts.count { handle.rowsPerExpert[local] = 0 }
    for row in 0..<rows {
      handle.copies!.marks.forEachPair(of: row) { _, expert in handle.rowsPerExpert[expert] += 1 }
    }
    var start = 0
    for local in 0..<localExperts.count {
      handle.copies!.expertStart[local] = start
      start += handle.rowsPerExpert[local]
    }
    let copies = try leaseRows(handle.copies!.marks.pairs)
    let hidden = layout.hidden
    for row in 0..<rows {
      handle.copies!.marks.forEachPair(of: row) { pair, expert in
        let place = handle.copies!.expertStart[expert]
        handle.copies!.expertStart[expert] = place + 1
        handle.copies!.places[pair] = place
        (copies.base + place * hidden).update(from: handle.rows.base + row * hidden, count: hidden)
      }
    }
    handle.rows = consume copies
  }

  /// The marks of every row that arrived, with their weights.
  private func readMarks(_ handle: DispatchHandle) throws(CrosspointError) {
    let isRounded = handle.copies!.roundsShares
    try handle.copies!.marks.start(rows: handle.rows.rows)
    for peer in 0..<fabric.rankCount {
      guard
        handle.copies!.marks.readBits(
          handle.received.rows(from: peer), from: UnsafeRawBufferPointer(transfer.metadataIn[peer]),
          experts: localExperts.count)
      else { throw corruptMarks(.dispatch, peer, "rows are marked for experts that are not there") }
    }
    try handle.copies!.marks.number()
    for peer in 0..<fabric.rankCount {
      let rows = handle.received.rows(from: peer)
      let (block, bits) = (
        UnsafeRawBufferPointer(transfer.metadataIn[peer]), handle.copies!.marks.bitBytes(rows: rows.count)
      )
      let weights = handle.copies!.marks.weights(of: rows)
      guard block.count == bits + PairNumbers.bytes(weights.count, isRounded: isRounded) else {
        throw corruptMarks(.dispatch, peer, "\(block.count) bytes for \(rows.count) rows and \(weights.count) marks")
      }
      PairNumbers.read(weights, isRounded: isRounded, from: UnsafeRawBufferPointer(rebasing: block[bits...]))
    }
  }

  /// The weighted sum of what the experts made of each row: what goes home. Keeps the outputs themselves.
  func sumOutputs(_ output: UnsafePointer<Float>, _ handle: DispatchHandle) throws(CrosspointError) -> TokenBatch {
    let outputs = try leaseRows(handle.copies!.marks.pairs)
    let kept = outputs.base
    let hidden = layout.hidden
    handle.copies!.outputs = consume outputs
    return try sum(output, handle) { pair, output in
      // Copied while it is in the cache.
      (kept + pair * hidden).update(from: output, count: hidden)
      return handle.copies!.marks.weights.base[pair]
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
    let sums = try leaseRows(handle.received.total)
    for row in 0..<sums.rows {
      let (sum, pairs) = (sums.base + row * hidden, handle.copies!.marks.pairs(of: row))
      if pairs.isEmpty { sum.update(repeating: 0, count: hidden) }
      for pair in pairs {
        let source = rows + handle.copies!.places[pair] * hidden
        add(source, weight: weight(pair, source), to: sum, isFirst: pair == pairs.lowerBound, hidden: hidden)
      }
    }
    return sums
  }

  /// Rows for ∂L/∂output of each copy, and room for the shares' gradients.
  func roomForOutputGradients(_ handle: DispatchHandle) throws(CrosspointError) -> TokenBatch {
    handle.copies!.shareGradients = try TokenBatch(
      uninitializedRows: handle.copies!.marks.pairs, hidden: 1, pool: pool)
    return try leaseRows(handle.rows.rows)
  }

  /// ∂L/∂output of each copy from that of its row; keeps what the shares' gradients are, ⟨gradient, output⟩.
  func differentiateOutputs(
    _ rows: UnsafePointer<Float>, _ handle: DispatchHandle, into gradients: UnsafeMutablePointer<Float>
  ) {
    let hidden = layout.hidden
    for row in 0..<handle.received.total {
      for pair in handle.copies!.marks.pairs(of: row) {
        let place = handle.copies!.places[pair] * hidden
        kernels.scale(gradients + place, handle.copies!.marks.weights.base[pair], rows + row * hidden, hidden)
        handle.copies!.shareGradients.base[pair] = kernels.dot(
          rows + row * hidden, handle.copies!.outputs.base + pair * hidden, hidden)
      }
    }
    handle.copies!.outputs = TokenBatch(emptyOfHidden: hidden, pool: pool)
  }

  /// Writes the shares' gradients as metadata of the rows that go home.
  func writeShareGradients(_ handle: DispatchHandle) throws(CrosspointError) {
    let isRounded = handle.copies!.roundsShares
    func pairs(_ peer: Int) -> Range<Int> { handle.copies!.marks.pairs(of: handle.received.rows(from: peer)) }
    try transfer.metadataOut.layOut { PairNumbers.bytes(pairs($0).count, isRounded: isRounded) }
    for peer in 0..<fabric.rankCount {
      PairNumbers.write(
        UnsafeBufferPointer(rebasing: handle.copies!.shareGradients.elements[pairs(peer)]), isRounded: isRounded,
        to: transfer.metadataOut[peer])
    }
  }
}
