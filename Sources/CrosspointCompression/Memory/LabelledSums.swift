import CrosspointCore
import CrosspointTokens

/// What rows of all ranks say of their labels: anchors, the mean of all rows, and what this rank's rows leave of them.
struct LabelledSums {
  /// The anchor of a label is drawn towards what was known of it, as if so many of its rows were there: the mean of all
  /// rows for a new label, its earlier anchor otherwise.
  private static let (newWeight, earlierWeight): (Float, Float) = (1, 8)

  /// Rows of all ranks.
  let total: Float
  /// `[hidden]`.
  let mean: [Float]
  /// Those with rows of their own first, most frequent first, then those that keep their anchors.
  let labels: [Int32]
  /// `[labels × hidden]`, relative to the mean.
  private(set) var anchors: [Float]

  private let codec: RowCodec
  /// This rank's.
  private let rows: [(base: UnsafePointer<Float>, label: Int32)]
  private let places: [Int32: Int]
  /// By how much longer a row would lie from its anchor had it not been seen itself: (n + κ) / (n + κ − 1).
  private var factors: [Float] = []

  /// For the parameters see ``RowMemory/learned(from:after:least:mostRows:emphasis:codec:over:)``. Collective if the sums are.
  init(
    _ sources: [RowSource], after earlier: RowMemory?, least: Int, codec: RowCodec, over ranks: RankSums
  ) throws(CrosspointError) {
    let (hidden, kernels) = (codec.hidden, codec.kernels)
    self.codec = codec
    let rows = sources.flatMap { source in
      (0..<source.rows).map { (base: UnsafePointer(source.row($0, hidden: hidden).floats), label: source.label($0)) }
    }.filter { AdmittedValues.finite.firstRefused(RowPointer($0.base), hidden, bound: RowMemory.bound) == nil }
    self.rows = rows
    var counts: [Int32: Int] = [:]
    for row in rows where row.label >= 0 { counts[row.label, default: 0] += 1 }
    let seen = try ranks.counts(counts).filter { $0.value >= least }.sorted { ($1.value, $0.key) < ($0.value, $1.key) }
      .prefix(RowMemory.mostAnchors)
    let fresh = Set(seen.map(\.key))
    labels =
      seen.map(\.key)
      + (earlier?.labels ?? []).filter { !fresh.contains($0) }
      .prefix(RowMemory.mostAnchors - seen.count)
    places = Dictionary(uniqueKeysWithValues: zip(labels, 0...))

    // Of labels, of all rows, and how many these are.
    var sums = [Float](repeating: 0, count: (seen.count + 1) * hidden + 1)
    sums.withUnsafeMutableBufferPointer { [places] sums in
      func add(_ row: UnsafePointer<Float>, at place: Int) {
        kernels.axpy(sums.baseAddress! + place * hidden, 1, row, hidden)
      }
      for row in rows {
        if let place = places[row.label], place < seen.count { add(row.base, at: place) }
        add(row.base, at: seen.count)
        sums[sums.count - 1] += 1
      }
    }
    try sums.withUnsafeMutableBufferPointer { sums throws(CrosspointError) in try ranks.values(sums) }
    let total = sums.removeLast()
    self.total = total
    mean = sums[(seen.count * hidden)...].map { $0 / total }
    anchors = [Float](repeating: 0, count: labels.count * hidden)
    for (place, label) in labels.enumerated() {
      let count = place < seen.count ? Float(seen[place].value) : 0
      let before = earlier?.anchor(of: label)
      let weight = before == nil ? Self.newWeight : Self.earlierWeight
      if count > 0 { factors.append((count + weight) / (count + weight - 1)) }
      for column in 0..<hidden {
        let known = (before?[column] ?? mean[column]) - mean[column]
        let sum = count > 0 ? sums[place * hidden + column] - count * mean[column] : 0
        anchors[place * hidden + column] = (sum + weight * known) / (count + weight)
      }
    }
  }

  /// Calls `body` with what anchors leave of this rank's rows, of at most about so many.
  func forEachResidual(_ most: Int, _ body: ([Float]) -> Void) {
    let (hidden, kernels) = (codec.hidden, codec.kernels)
    var residual = [Float](repeating: 0, count: hidden)
    for index in stride(from: 0, to: rows.count, by: max(1, (rows.count + most / 2) / most)) {
      kernels.scale(&residual, 1, rows[index].base, hidden)
      kernels.axpy(&residual, -1, mean, hidden)
      if let place = places[rows[index].label] {
        anchors.withUnsafeBufferPointer { kernels.axpy(&residual, -1, $0.baseAddress! + place * hidden, hidden) }
        if place < factors.count { kernels.scale(&residual, factors[place], residual, hidden) }
      }
      body(residual)
    }
  }
}
