import CrosspointCore
import CrosspointTokens

#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// How a memory is learned: sums over rows, which add up over ranks, and then means and axes of what they leave.
extension RowMemory {
  /// Axes that are tracked; more cost products and bytes.
  private static let mostAxes = 256
  /// Rows larger than this have no axes: their second moments take the square of it.
  private static let mostHidden = 8192
  /// An anchor is drawn towards the mean of all rows as if so many of its rows were there: (Σx + κm) / (n + κ).
  private static let smoothing: Float = 1
  /// Steps of the orthogonal iteration, from axes at random.
  private static let iterations = 16

  /// Weights are the spreads of coordinates to this power. With 0 the error of rows would be least; that of what experts
  /// make of them is less with some emphasis (docs/algorithms.md).
  private static let emphasis: Float = 0.3
  /// What an energy over the mean of all counts at least.
  private static let leastEnergy: Float = 0x1p-20
  /// Rows from which spreads are taken.
  private static let weighedRows = 4096

  /// - Parameter labels: one of each row, of ``labelRange``; none: no row has one.
  /// - Throws: `nonFinite` for rows that are not finite, or too large for their squares to be.
  package init(
    learnedFrom rows: borrowing TokenBatch, labels: [Int32]?, codec: RowCodec
  ) throws(CrosspointError) {
    let (hidden, kernels) = (codec.hidden, codec.kernels)
    let (base, count) = (UnsafePointer(rows.base), rows.rows)
    precondition(rows.hidden == hidden && (labels?.count ?? count) == count)
    func row(_ index: Int) -> UnsafePointer<Float> { base + index * hidden }
    for index in 0..<count { try AdmittedValues.finite.check(row(index), hidden, bound: 0x1p50, Self.anchorFormat) }
    var mean = [Float](repeating: 0, count: hidden)
    for index in 0..<count { kernels.axpy(&mean, 1 / Float(count), row(index), hidden) }

    var counts: [Int32: Int] = [:]
    for label in labels ?? [] where label >= 0 { counts[label, default: 0] += 1 }
    let known = counts.sorted { ($1.value, $0.key) < ($0.value, $1.key) }
      .prefix(Self.mostAnchors).map { $0 }
    let numbers = Dictionary(uniqueKeysWithValues: zip(known.map { $0.key }, 0...))
    let places = labels.map { labels in labels.map { numbers[$0] } } ?? Array(repeating: nil, count: count)
    var anchors = [Float](repeating: 0, count: known.count * hidden)
    anchors.withUnsafeMutableBufferPointer { anchors in
      for (index, place) in places.enumerated() {
        guard let place else { continue }
        let scale = 1 / (Float(known[place].value) + Self.smoothing)
        kernels.axpy_difference(anchors.baseAddress! + place * hidden, scale, row(index), mean, hidden)
      }
    }

    // Residuals as they would be had the row itself not been seen: (n + κ) / (n + κ − 1) as long.
    func residual(_ index: Int, into residual: UnsafeMutablePointer<Float>) {
      kernels.scale(residual, 1, row(index), hidden)
      kernels.axpy(residual, -1, mean, hidden)
      guard let place = places[index] else { return }
      anchors.withUnsafeBufferPointer { kernels.axpy(residual, -1, $0.baseAddress! + place * hidden, hidden) }
      let seen = Float(known[place].value) + Self.smoothing
      kernels.scale(residual, seen / (seen - 1), residual, hidden)
    }
    var scatter = try Scatter(hidden: hidden, most: Self.mostHidden)
    var scratch = [Float](repeating: 0, count: hidden)
    for index in 0..<count {
      residual(index, into: &scratch)
      scatter.add(scratch, kernels)
    }
    let axes = scatter.leadingAxes(min(Self.mostAxes, hidden * 2 / 3, count), iterations: Self.iterations, kernels)
    let map = axes.isEmpty ? nil : Reflections(axes: axes, hidden: hidden)
    var spreads = [Float](repeating: 0, count: hidden)
    for index in stride(from: 0, to: count, by: (count + Self.weighedRows - 1) / Self.weighedRows) {
      residual(index, into: &scratch)
      map?.apply(&scratch, 1, kernels)
      kernels.axpy_squares(&spreads, 1, scratch, hidden)
    }
    try self.init(
      mean: mean, labels: known.map { $0.key }, anchors: anchors, axes: axes, weights: Self.weights(spreads),
      codec: codec)
  }

  /// Weights from the energies of coordinates: experts feel the directions in which rows differ much more than in proportion.
  private static func weights(_ energies: [Float]) -> [Float] {
    let mean = energies.reduce(0, +) / Float(energies.count)
    guard mean > 0, mean.isFinite else { return energies.map { _ in 1 } }
    return energies.map { pow(max($0 / mean, leastEnergy), emphasis / 2) }
  }
}
