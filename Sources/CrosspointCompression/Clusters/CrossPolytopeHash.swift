import CrosspointCore
import CrosspointTokens

/// Cross-polytope hashing of rows: which axis of a rotated space, and which end of it, a row points to.
///
/// One rotation feeds all functions: function f looks at rotated coordinates `f · width ..< (f + 1) · width`, and its id is
/// the place of the largest magnitude, plus `width` if that coordinate is negative; the lowest place wins ties (a row of
/// zeros has id 0). NaN counts as larger than infinity, so that every row has exactly one answer.
///
/// Source: LSH-MoE (arXiv 2411.08446), Eq. 2; Andoni et al. (arXiv 1509.02897).
package struct CrossPolytopeHash: Sendable {
  package let rotation: PseudoRotation
  /// Number of ids per row.
  package let functions: Int
  /// Coordinates per function; ids are below twice this.
  package let width: Int

  /// - Throws: `invalidArgument` where ``ClusterOptions/validate(hidden:)`` does.
  package init(options: ClusterOptions, hidden: Int, seed: UInt64) throws(CrosspointError) {
    try options.validate(hidden: hidden)
    rotation = try PseudoRotation(hidden: hidden, rounds: options.rounds, seed: seed)
    functions = options.functions
    width = options.resolvedWidth(hidden: hidden)
  }

  /// Writes the ids (`count × functions`) of `count` rows (`count × hidden`), uncentred. `scratch` has space for one row.
  package func ids(
    of rows: UnsafePointer<Float>, count: Int, into ids: UnsafeMutablePointer<UInt32>,
    scratch: UnsafeMutablePointer<Float>
  ) {
    for row in 0..<count {
      let ahead = row + 1 < count ? rows + (row + 1) * rotation.hidden : nil
      rotation.rotate(rows + row * rotation.hidden, into: scratch, ahead: ahead)
      self.ids(ofRotated: scratch, mean: nil, into: ids + row * functions)
    }
  }

  /// The ids of one rotated row, less a rotated mean.
  func ids(ofRotated row: UnsafePointer<Float>, mean: UnsafePointer<Float>?, into ids: UnsafeMutablePointer<UInt32>) {
    kernels.cross_polytope(ids, row, mean, width, functions)
  }
}
