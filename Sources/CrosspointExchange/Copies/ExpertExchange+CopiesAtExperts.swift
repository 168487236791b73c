import CrosspointCore
import CrosspointTokens

/// One copy per rank, where the experts are: each row is handed to those that it is marked for, and what they make of it
/// is summed, weighted, before it goes home.
extension ExpertExchange {
  /// Decides where the copies of each row that arrives go, by the marks that came with it; returns memory for them.
  func placeCopies(_ handle: DispatchHandle) throws(CrosspointError) -> TokenBatch {
    try handle.copies!.place(rows: handle.rows.rows, rowsPerExpert: &handle.rowsPerExpert)
    return try leaseRows(handle.copies!.marks.pairs)
  }

  /// Hands the rows that have arrived to the experts: `handle.rows` becomes a row per pair, grouped by expert.
  func fanOut(_ handle: DispatchHandle, into copies: consuming TokenBatch) {
    handle.copies!.fanOut(handle.rows, 0..<handle.rows.rows, into: copies)
    handle.rows = copies
  }

  /// The marks of every row that arrived, with their weights.
  func readMarks(_ handle: DispatchHandle) throws(CrosspointError) {
    let shares = handle.copies!.shares
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
      guard block.count == bits + shares.bytes(weights.count) else {
        throw corruptMarks(.dispatch, peer, "\(block.count) bytes for \(rows.count) rows and \(weights.count) marks")
      }
      shares.read(weights, from: UnsafeRawBufferPointer(rebasing: block[bits...]))
    }
  }

  /// The weighted sums of what the experts made of each row, which go home. Keeps the outputs themselves.
  func sumOutputs(_ output: borrowing TokenBatch, _ handle: DispatchHandle) throws(CrosspointError) {
    let kept = handle.holds(output) ? nil : try handle.outputs().base
    handle.copies!.outputs = UnsafePointer(kept ?? output.base)
    try sum(output.base, handle, areWeighted: true, keeping: kept)
  }

  /// The sums of the gradients of each row's copies, which go home.
  func sumGradients(_ gradient: UnsafePointer<Float>, _ handle: DispatchHandle) throws(CrosspointError) {
    try sum(gradient, handle, areWeighted: false)
  }

  /// Sums the copies of each row that arrived, and checks the sums: they may be read where they lie.
  private func sum(
    _ copies: UnsafePointer<Float>, _ handle: DispatchHandle, areWeighted: Bool,
    keeping kept: UnsafeMutablePointer<Float>? = nil
  ) throws(CrosspointError) {
    let sums = try leaseRows(handle.received.total)
    let transfer = transfer
    do throws(CrosspointError) {
      try handle.copies!.sum(copies, areWeighted: areWeighted, keeping: kept, into: sums) {
        row throws(CrosspointError) in try transfer.check(RowPointer(row))
      }
    } catch { throw transfer.named(error) }
    handle.copies!.sums = sums
  }

  /// Rows for ∂L/∂output of each copy, and space for the shares' gradients.
  func roomForOutputGradients(_ handle: DispatchHandle) throws(CrosspointError) -> TokenBatch {
    handle.copies!.shareGradients = try TokenBatch(
      uninitializedRows: handle.copies!.marks.pairs, hidden: 1, pool: pool)
    return try leaseRows(handle.rows.rows)
  }

  /// Writes the shares' gradients as metadata of the rows that go home.
  func writeShareGradients(_ handle: DispatchHandle) throws(CrosspointError) {
    let shares = handle.copies!.shares
    func pairs(_ peer: Int) -> Range<Int> { handle.copies!.marks.pairs(of: handle.received.rows(from: peer)) }
    try transfer.metadataOut.layOut { shares.bytes(pairs($0).count) }
    for peer in 0..<fabric.rankCount {
      shares.write(
        UnsafeBufferPointer(rebasing: handle.copies!.shareGradients.elements[pairs(peer)]),
        to: transfer.metadataOut[peer])
    }
  }
}
