import CrosspointCompression
import CrosspointCore
import CrosspointTokens
import Glibc

/// What arrives of the rows that a transfer sends, found out at their source: frames are decoded as the receiver will.
extension Transfer {
  /// Decodes this rank's own frames and compares what comes out with what went in.
  ///
  /// - Parameter compare: compares what arrives at a rank with what it stands for; `nil` where that is the rows themselves.
  func measureFidelity(
    _ compare: (_ rank: Int, _ arrived: [RowTarget]) -> Fidelity?
  ) throws(CrosspointError) {
    for rank in 0..<fabric.rankCount where rank != fabric.rank && sources[rank].rowCount > 0 {
      let decoded = try pool.lease(bytes: arrivesAsItLies(at: rank) ? 0 : sources[rank].rowCount * rowBytes)
      defer { pool.release(decoded) }
      try decodeOwnFrame(to: rank, into: decoded.base.assumingMemoryBound(to: Float.self))
      measure.fidelity = measure.fidelity + (compare(rank, ownTargets) ?? compareRows(to: rank))
    }
  }

  /// Whether a rank gets plain rows that need not be gathered.
  private func arrivesAsItLies(at rank: Int) -> Bool {
    format == plain && sources[rank].allSatisfy { $0.indices == nil }
  }

  /// Fills ``ownTargets`` with what a rank will get.
  private func decodeOwnFrame(
    to rank: Int, into decoded: UnsafeMutablePointer<Float>
  ) throws(CrosspointError) {
    ownTargets.removeAll(keepingCapacity: true)
    if arrivesAsItLies(at: rank) {
      // Nobody writes here.
      for source in sources[rank] {
        ownTargets.append(RowTarget(first: source.first, rows: source.rows))
      }
      return
    }
    var next = decoded
    for source in sources[rank] {
      ownTargets.append(RowTarget(base: next, rows: source.rows, labels: source.labels))
      next += source.rows * codec.hidden
    }
    let header = announcement(to: rank).header
    try codec.decode(
      header: UnsafeRawBufferPointer(rebasing: header[..<RowCodec.headerBytes(groups: sources[rank].count)]),
      body: encoded[rank], memory: memory, into: ownTargets)
  }

  private func compareRows(to rank: Int) -> Fidelity {
    var sum = Fidelity()
    for (source, target) in zip(sources[rank], ownTargets) {
      for index in 0..<source.rows {
        let row = source.row(index, hidden: codec.hidden).floats
        sum.lost += kernels.squares(row, minus: target.row(index, hidden: codec.hidden).floats, codec.hidden)
        sum.whole += kernels.squares(row, codec.hidden)
      }
    }
    return sum
  }
}

// MARK: - What is told with an announcement

extension Transfer {
  /// Writes what this rank has found out, and behind it what its policy tells; as logarithms, since a float does not hold
  /// the square of every float.
  func write(to note: UnsafeMutableBufferPointer<Float>) {
    guard !note.isEmpty else { return }
    note[NoteWord.bytes.rawValue] = Float(measure.wireBytes)
    note[NoteWord.lost.rawValue] = Float(log2(measure.fidelity.lost))
    note[NoteWord.whole.rawValue] = Float(log2(measure.fidelity.whole))
    _ = policyWords(of: note).update(fromContentsOf: self.note)
  }

  /// What all ranks have found out.
  var outcome: TransferOutcome {
    var sum = TransferOutcome()
    for rank in 0..<fabric.rankCount {
      let note = announcement(of: rank).note
      sum.bytes += Double(note[NoteWord.bytes.rawValue])
      let (lost, whole) = (note[NoteWord.lost.rawValue], note[NoteWord.whole.rawValue])
      sum.fidelity = sum.fidelity + Fidelity(lost: exp2(Double(lost)), whole: exp2(Double(whole)))
    }
    return sum
  }

  /// What the policy of a rank has told.
  func told(by rank: Int) -> UnsafeMutableBufferPointer<Float> { policyWords(of: announcement(of: rank).note) }

  private func policyWords(of note: UnsafeMutableBufferPointer<Float>) -> UnsafeMutableBufferPointer<Float> {
    UnsafeMutableBufferPointer(rebasing: note[NoteWord.allCases.count...])
  }
}
