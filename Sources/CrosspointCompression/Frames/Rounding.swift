import CrosspointCore

/// How the rows of a frame are rounded: to the nearest value of their format, which has the least error; or without bias where
/// the format can, which sums over many rows need. The random numbers of a row depend on the frame's key and the row's number
/// in the frame.
///
/// Without bias a row of `rotated` gets random signs of its own and a scale that gives back its length along itself, at an error
/// near that of the nearest value; an element of `entropy` noise of one step, which the receiver takes off again, so that its
/// error depends on the noise alone. Frames carry the key. Other formats round to nearest.
///
/// Sources: Vargaftik et al., "EDEN" (arXiv 2108.08842), theorem 1; with one bit "DRIVE" (arXiv 2105.08339). For noise:
/// L. Schuchman, "Dither signals and their effect on quantization noise", IEEE Trans. Commun. Technol. 12, 1964.
package struct RowRounding: Sendable {
  package let isUnbiased: Bool
  private var rows: SplitMix64

  private init(_ isUnbiased: Bool, key: UInt64) {
    self.isUnbiased = isUnbiased
    rows = SplitMix64(seed: key)
  }

  package static let nearest = RowRounding(false, key: 0)
  package static func unbiased(key: UInt64) -> RowRounding { RowRounding(true, key: key) }

  /// The same rounding with random numbers of its own for everything that `number` may stand for.
  package func keyed(by number: UInt64) -> RowRounding {
    var rows = rows
    var mixer = SplitMix64(seed: rows.next() ^ number)
    return RowRounding(isUnbiased, key: mixer.next())
  }

  /// From which the keys of rows follow.
  var key: UInt64 { rows.state }

  mutating func nextKey() -> UInt64 { rows.next() }
}
