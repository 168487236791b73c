import CrosspointCore
import CrosspointTokens

/// One copy per rank, where the experts are: each row is handed to those that it is marked for, and what they make of it
/// is summed, weighted, before it goes home.
extension ExpertExchange {
  /// Decides where the copies of each row that arrives go, by the marks that came with it; returns memory for them.
  func placeCopies(_ handle: DispatchHandle) throws(CrosspointError) -> TokenBatch {
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
    for row in 0..<rows {
      handle.copies!.marks.forEachPair(of: row) { pair, expert in
        let place = handle.copies!.expertStart[expert]
        handle.copies!.expertStart[expert] = place + 1
        handle.copies!.places[pair] = place
      }
    }
    return try leaseRows(handle.copies!.marks.pairs)
  }

  /// Hands the rows that have arrived to the experts: `handle.rows` becomes a row per pair, grouped by expert.
  func fanOut(_ handle: DispatchHandle, into copies: consuming TokenBatch) {
    let hidden = layout.hidden
    for row in 0..<handle.rows.rows {
      for pair in handle.copies!.marks.pairs(of: row) {
        let copy = copies.base + handle.copies!.places[pair] * hidden
        copy.update(from: handle.rows.base + row * hidden, count: hidden)
      }
    }
    handle.rows = copies
  }

  /// The marks of every row that arrived, with their weights.
  func readMarks(_ handle: DispatchHandle) throws(CrosspointError) {
    let isRounded = handle.copies!.roundsShares
    try handle.copies!.marks.start(rows: handle.rows.rows)
    for peer in 0..<fabric.rankCount {
      guard
        handle.copies!.marks.readBits(
          handle.received.rows(from: peer), from: transfer.metadataIn[peer],
          experts: destinations.localExperts.count)
      else { throw corruptMarks(.dispatch, peer, "rows are marked for experts that are not there") }
    }
    try handle.copies!.marks.number()
    for peer in 0..<fabric.rankCount {
      let rows = handle.received.rows(from: peer)
      let (block, bits) = (
        transfer.metadataIn[peer], handle.copies!.marks.bitBytes(rows: rows.count)
      )
      let weights = handle.copies!.marks.weights(of: rows)
      guard block.count == bits + PairNumbers.bytes(weights.count, isRounded: isRounded) else {
        throw corruptMarks(.dispatch, peer, "\(block.count) bytes for \(rows.count) rows and \(weights.count) marks")
      }
      PairNumbers.read(weights, isRounded: isRounded, from: UnsafeRawBufferPointer(rebasing: block[bits...]))
    }
  }

  /// The weighted sums of what the experts made of each row, which go home. Keeps the outputs themselves.
  func sumOutputs(_ output: borrowing TokenBatch, _ handle: DispatchHandle) throws(CrosspointError) {
    let (rows, hidden) = (output.base, layout.hidden)
    let kept = handle.holds(output) ? nil : try handle.outputs().base
    handle.copies!.outputs = UnsafePointer(kept ?? rows)
    handle.copies!.sums = try sum(rows, handle) { pair, place in
      // Copied while it is in the cache.
      if let kept { (kept + place).update(from: rows + place, count: hidden) }
      return handle.copies!.marks.weights.base[pair]
    }
  }

  /// The sums of the gradients of each row's copies, which go home.
  func sumGradients(_ gradient: UnsafePointer<Float>, _ handle: DispatchHandle) throws(CrosspointError) {
    handle.copies!.sums = try sum(gradient, handle) { _, _ in 1 }
  }

  /// Sums the copies of each row that arrived, and checks the sums: they may be read where they lie.
  private func sum(
    _ rows: UnsafePointer<Float>, _ handle: DispatchHandle, _ weight: (_ pair: Int, _ place: Int) -> Float
  ) throws(CrosspointError) -> TokenBatch {
    let hidden = layout.hidden
    let sums = try leaseRows(handle.received.total)
    for row in 0..<sums.rows {
      let (sum, pairs) = (sums.base + row * hidden, handle.copies!.marks.pairs(of: row))
      if pairs.isEmpty { sum.update(repeating: 0, count: hidden) }
      for pair in pairs {
        let place = handle.copies!.places[pair] * hidden
        add(rows + place, weight: weight(pair, place), to: sum, isFirst: pair == pairs.lowerBound, hidden: hidden)
      }
      do throws(CrosspointError) { try transfer.check(sum) } catch { throw transfer.named(error) }
    }
    return sums
  }

  /// Rows for ∂L/∂output of each copy, and space for the shares' gradients.
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
          rows + row * hidden, handle.copies!.outputs! + place, hidden)
      }
    }
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
