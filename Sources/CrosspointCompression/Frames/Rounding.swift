import CrosspointCore

/// How an encoder chooses between the two values of a format that enclose an element.
public enum Rounding: String, Hashable, Sendable, CaseIterable {
  /// The nearer one: the least error, but a biased one; rotated codes come out too small, by their error's energy.
  case nearest
  /// Either one at random, such that the mean over draws is the element itself. Scales reach over the whole row, since
  /// what is cut off could not be made good. For `rotated`, `int8`, `int4` and `fp8`; `entropy` as with ``eden``; other formats
  /// round to nearest.
  /// Source: Alistarh et al., "QSGD" (arXiv 1610.02132).
  case stochastic
  /// The nearer one after random signs of each row's own, with a scale that gives back the row's length along itself:
  /// unbiased (as far as signs and a Hadamard matrix make a random rotation) at an error near that of ``nearest``. Frames
  /// carry the signs' key. For `rotated`. `entropy` adds noise of one step, which the receiver takes off again: then the
  /// error depends on the noise alone. Other formats round to nearest.
  /// Source: Vargaftik et al., "EDEN" (arXiv 2108.08842), theorem 1; with one bit "DRIVE" (arXiv 2105.08339). For noise:
  /// L. Schuchman, "Dither signals and their effect on quantization noise", IEEE Trans. Commun. Technol. 12, 1964.
  case eden
}

/// A rounding and the random numbers of one frame: those of a row depend on the key and the row's number in the frame.
package struct RowRounding: Sendable {
  package let rounding: Rounding
  private var rows: SplitMix64

  package init(_ rounding: Rounding, key: UInt64) {
    self.rounding = rounding
    rows = SplitMix64(seed: key)
  }

  package static let nearest = RowRounding(.nearest, key: 0)

  /// The same rounding with random numbers of its own for everything that `number` may stand for.
  package func keyed(by number: UInt64) -> RowRounding {
    var rows = rows
    var mixer = SplitMix64(seed: rows.next() ^ number)
    return RowRounding(rounding, key: mixer.next())
  }

  /// From which the keys of rows follow.
  var key: UInt64 { rows.state }

  mutating func nextKey() -> UInt64 { rows.next() }

  /// The key of the next row; `nil` unless it is rounded at random.
  mutating func nextDither() -> UInt64? { rounding == .stochastic ? nextKey() : nil }
}
