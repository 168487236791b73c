import CrosspointCore
import CrosspointTokens
import Glibc

/// How what the rows of each rank say adds up over ranks, the same on all of them; one rank alone has nothing to add.
package struct RankSums {
  /// Does what may fail on one rank alone; then it throws on all.
  package let together: (() throws(CrosspointError) -> Void) throws(CrosspointError) -> Void
  /// Rows of each label.
  package let counts: ([Int32: Int]) throws(CrosspointError) -> [Int32: Int]
  package let values: (UnsafeMutableBufferPointer<Float>) throws(CrosspointError) -> Void

  package init(
    together: @escaping (() throws(CrosspointError) -> Void) throws(CrosspointError) -> Void,
    counts: @escaping ([Int32: Int]) throws(CrosspointError) -> [Int32: Int],
    values: @escaping (UnsafeMutableBufferPointer<Float>) throws(CrosspointError) -> Void
  ) {
    (self.together, self.counts, self.values) = (together, counts, values)
  }

  package static var alone: RankSums {
    RankSums(
      together: { step throws(CrosspointError) in try step() }, counts: { counts throws(CrosspointError) in counts },
      values: { _ throws(CrosspointError) in })
  }
}

/// How a memory is learned: sums over rows, which add up over ranks, then means, and axes of what these leave.
extension RowMemory {
  /// What rows of earlier steps say, taken as learned every 64 steps.
  ///
  /// - Parameter labels: one of each row, of ``labelRange``; none: no row has one.
  /// - Throws: `nonFinite` for rows that are not finite, or too large for their squares to be.
  package init(
    learnedFrom rows: borrowing TokenBatch, labels: [Int32]?, codec: RowCodec
  ) throws(CrosspointError) {
    precondition(rows.rows > 0 && rows.hidden == codec.hidden && (labels?.count ?? rows.rows) == rows.rows)
    for index in 0..<rows.rows {
      try AdmittedValues.finite.check(
        rows.view.row(index), codec.hidden, bound: Self.bound, Self.anchorFormat)
    }
    let (base, count) = (UnsafePointer(rows.base), rows.rows)
    self = try (labels ?? Array(repeating: -1, count: count)).withUnsafeBufferPointer {
      labels throws(CrosspointError) in
      try Self.learned(from: [RowSource(base: base, rows: count, labels: labels.baseAddress)], codec: codec)!
    }
    bytesPerStep = (bytes.count + 63) / 64
  }

  /// Axes that are tracked; more cost products and bytes.
  private static let mostAxes = 256
  /// Rows larger than this have no axes: their second moments take the square of it.
  private static let mostHidden = 8192
  /// Steps of the orthogonal iteration, from axes at random and from earlier ones.
  private static let (newIterations, laterIterations) = (16, 4)
  /// Weights are the spreads of coordinates to this power where experts feel the rows. With 0 the error of rows would be
  /// least; that of what experts make of them is less with some emphasis (docs/algorithms.md).
  package static let emphasis: Float = 0.3
  /// What an energy over the mean of all counts at least.
  private static let leastEnergy: Float = 0x1p-20
  /// Magnitudes from which rows are left out: their squares would not add up.
  package static let bound: Float = 0x1p50

  /// What is to be remembered from now on. Collective if the sums are.
  ///
  /// - Parameters:
  ///   - sources: this rank's rows, with labels of ``labelRange`` where they have any. Rows that are not finite, or beyond
  ///     ``bound``, are left out.
  ///   - earlier: what was remembered so far: labels without rows keep their anchors.
  ///   - least: rows of a label, over all ranks, from which it gets an anchor, or a new one.
  ///   - mostRows: how many rows of this rank axes are learned from.
  /// - Returns: what was remembered so far where no rank has rows.
  package static func learned(
    from sources: [RowSource], after earlier: RowMemory? = nil, least: Int = 1, mostRows: Int = .max,
    emphasis: Float = emphasis, codec: RowCodec, over ranks: RankSums = .alone
  ) throws(CrosspointError) -> RowMemory? {
    let (hidden, kernels) = (codec.hidden, codec.kernels)
    var room: Scatter?
    try ranks.together { () throws(CrosspointError) in room = try Scatter(hidden: hidden, most: mostHidden) }
    let lesson = try LabelledSums(sources, after: earlier, least: least, codec: codec, over: ranks)
    guard lesson.total > 0, var scatter = room.take() else { return earlier }
    lesson.forEachResidual(mostRows) { scatter.add($0, kernels) }
    try scatter.sum(over: ranks)
    let axes = scatter.leadingAxes(
      min(mostAxes, hidden * 2 / 3, Int(lesson.total)), from: earlier?.axisRows(codec) ?? [],
      iterations: earlier == nil ? newIterations : laterIterations, kernels)
    let map = axes.isEmpty ? nil : Reflections(axes: axes, hidden: hidden)
    return try RowMemory(
      mean: lesson.mean, labels: lesson.labels, anchors: lesson.anchors, axes: axes,
      weights: weights(scatter.energies(behind: map, kernels), emphasis), codec: codec)
  }

  /// The axes, `[axes × hidden]`.
  private func axisRows(_ codec: RowCodec) -> [Float] {
    guard let axes else { return [] }
    var rows = [Float](repeating: 0, count: axes.count * hidden)
    for axis in 0..<axes.count { rows[axis * hidden + axis] = 1 }
    rows.withUnsafeMutableBufferPointer { axes.undo($0.baseAddress!, axes.count, codec.kernels) }
    return rows
  }

  /// Weights from the energies of coordinates: experts feel the directions in which rows differ much more than in proportion.
  private static func weights(_ energies: [Float], _ emphasis: Float) -> [Float] {
    let mean = energies.reduce(0, +) / Float(energies.count)
    guard mean > 0, mean.isFinite else { return energies.map { _ in 1 } }
    return energies.map { pow(max($0 / mean, leastEnergy), emphasis / 2) }
  }
}
