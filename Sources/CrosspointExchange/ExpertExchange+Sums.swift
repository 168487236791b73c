import CrosspointCore
import CrosspointRouting
import CrosspointTokens

/// The sums at home: combine's of outputs, dispatchBackward's of gradients.
extension ExpertExchange {
  /// Sums the rows of each token in the order of its choices, in floats; zeros for a token that was sent nowhere.
  ///
  /// Rows that are read in another rank's batch are checked, each once.
  /// - Parameters:
  ///   - argument: what that batch is called, for errors.
  ///   - weight: of a slot's row in the sum.
  ///   - residual: adds what a slot has besides its row.
  /// - Throws: `nonFinite` with the place in that rank's batch.
  @inline(__always)
  func sumRows(
    _ rows: HomeRows, _ handle: DispatchHandle, _ argument: String, into sums: RowsView,
    weight: (_ slot: Int, _ row: Int) -> Float,
    residual: (_ slot: Int, _ row: Int, _ sum: UnsafeMutablePointer<Float>) -> Void
  ) throws(CrosspointError) {
    let hidden = layout.hidden
    let routing = handle.destinations
    let (wideSum, wideRow) = (transfer.codec.scratchRow(0), transfer.codec.scratchRow(1))
    // Sums over copies have been checked where they were made.
    let isChecked = transfer.readsInPlace && transfer.checked != nil && !sharesCopies
    let (rowOfSlot, firstSlot) = (handle.source.plan.rowOfSlot.base, handle.source.plan.firstSlot.base)
    for token in 0..<routing.tokens {
      let place = sums.row(token)
      let sum = place.type.isFloat ? place.floats : wideSum
      var isFirst = true
      for slot in (token * routing.topK)..<((token + 1) * routing.topK) {
        let row = Int(rowOfSlot[slot])
        guard row >= 0 else { continue }
        let destination = Int(routing.topkIndices[slot])
        let values = rows.row(row, of: destination, hidden: hidden)
        if isChecked, rows.isElsewhere(destination), Int(firstSlot[row]) == slot {
          try check(values, argument)
        }
        add(
          values.floats(hidden, scratch: wideRow), weight: weight(slot, row), to: sum, isFirst: isFirst, hidden: hidden)
        isFirst = false
        residual(slot, row, sum)
      }
      if isFirst { sum.update(repeating: 0, count: hidden) }
      if !place.type.isFloat { place.store(UnsafePointer(sum), hidden) }
    }
  }
}
