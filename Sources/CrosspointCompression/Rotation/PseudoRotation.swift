import CrosspointCore
import CrosspointTokens

/// A seeded orthonormal map that stands in for a random rotation and costs O(d log d) instead of O(d²).
///
/// One round multiplies by random signs and applies a Hadamard matrix. Where the hidden size is no power of two, the
/// matrix works on the first p and then on the last p coordinates (p is the largest power of two within), each with signs
/// of its own, and the two halves of the row are joined by `(a + b, a − b) / √2`; no coordinate is added. The Hadamard
/// matrix has the entries `(−1)^popcount(i & j) / √p`.
///
/// Every processor gives the same bits. Source: Andoni et al., "Practical and Optimal LSH for Angular Distance"
/// (arXiv 1509.02897), section 6.
package struct PseudoRotation: Sendable {
  /// Floats per row.
  package let hidden: Int
  /// Rounds of signs and transform; more rounds look more like a uniformly random rotation.
  package let rounds: Int
  /// For each round the signs of the first p coordinates and, if p < hidden, those of the last p; times 1/√p.
  package let signs: [Float]

  /// Rounds that a rotation may have.
  package static let roundsAllowed = 1...8

  /// - Throws: `invalidArgument` unless `hidden` is in 1…2²⁴ and `rounds` in 1…8.
  package init(hidden: Int, rounds: Int, seed: UInt64) throws(CrosspointError) {
    try Extent.require(hidden, in: Extent.hidden, operation: "PseudoRotation", argument: "hidden")
    guard Self.roundsAllowed.contains(rounds) else {
      throw CrosspointError(
        .invalidArgument, operation: "PseudoRotation", argument: "rounds", "\(rounds) is not in 1…8")
    }
    self.hidden = hidden
    self.rounds = rounds
    let window = hidden.largestPowerOfTwoWithin
    let size = Float(1 / Double(window).squareRoot())
    var generator = SplitMix64(seed: seed)
    signs = (0..<rounds * window * (window == hidden ? 1 : 2)).map { _ in
      generator.next() >> 63 == 0 ? size : -size
    }
  }

  /// Rotates a row of ``hidden`` floats, and has the row `ahead` fetched from memory meanwhile; `into` may be the row itself but
  /// may not overlap it otherwise.
  package func rotate(
    _ row: UnsafePointer<Float>, into result: UnsafeMutablePointer<Float>, ahead: UnsafePointer<Float>? = nil
  ) {
    signs.withUnsafeBufferPointer { kernels.rotate(result, row, $0.baseAddress, hidden, Int32(rounds), ahead) }
  }

  /// The inverse of ``rotate(_:into:ahead:)``, which is also its adjoint; exact up to rounding.
  package func rotateBack(_ row: UnsafePointer<Float>, into result: UnsafeMutablePointer<Float>) {
    signs.withUnsafeBufferPointer { kernels.rotate_back(result, row, $0.baseAddress, hidden, Int32(rounds)) }
  }
}

extension Int {
  /// The largest power of two that is at most this positive number.
  package var largestPowerOfTwoWithin: Int { 1 << (Int.bitWidth - 1 - leadingZeroBitCount) }
}
