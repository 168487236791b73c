import Crosspoint
import CrosspointTokens

/// What clustering and the rotations of rotated codes take: as Crosspoint does it, and with one rotation for both.
///
/// Crosspoint rotates tokens to hash them, by all rounds, and does not keep them unless distances are asked for; it averages
/// the tokens themselves and rotates each centroid by one round to be coded, and back at the receiver. With one rotation,
/// rotated tokens are kept and averaged, and centroids are coded as they are; but the receiver must undo all rounds, and so
/// must the source to know its residuals. Coding is the same in both and is left out.
final class SharedRotation {
  private let hash: CrossPolytopeHash
  private let codes: PseudoRotation
  private let members: [Int32]
  private let rotated: TokenBatch
  private let centroids: TokenBatch
  private let received: TokenBatch
  private var ids: [UInt32]
  private var table: [Int32]
  private var clusterOf: [Int32]
  private var counts: [Int32]

  init(options: ClusterOptions, rows: Int, hidden: Int, seed: UInt64) throws(CrosspointError) {
    hash = try CrossPolytopeHash(options: options, hidden: hidden, seed: seed)
    codes = try PseudoRotation(hidden: hidden, rounds: 1, seed: seed)
    members = (0..<Int32(rows)).map { $0 }
    rotated = try TokenBatch(rows: rows, hidden: hidden)
    centroids = try TokenBatch(rows: rows, hidden: hidden)
    received = try TokenBatch(rows: rows, hidden: hidden)
    ids = Array(repeating: 0, count: rows * options.functions)
    table = Array(repeating: 0, count: 4 * rows.largestPowerOfTwoWithin)
    clusterOf = Array(repeating: 0, count: rows)
    counts = clusterOf
  }

  /// Rotated tokens kept, hashed and averaged; centroids rotated back at home and at the receiver.
  func once(_ tokens: UnsafePointer<Float>) {
    let hidden = rotated.hidden
    ids.withUnsafeMutableBufferPointer { ids in
      for row in members.indices {
        let (token, place) = (tokens + row * hidden, rotated.base + row * hidden)
        hash.rotation.rotate(token, into: place, ahead: row + 1 < members.count ? token + hidden : nil)
        kernels.cross_polytope(ids.baseAddress! + row * hash.functions, place, nil, hash.width, hash.functions)
      }
    }
    let clusters = average(rotated.base)
    hash.rotation.rotateBack(centroids.base, count: clusters, into: received.base)
    hash.rotation.rotateBack(centroids.base, count: clusters, into: centroids.base)
  }

  /// Tokens rotated and hashed, row by row; centroids of tokens, rotated to be coded and back at the receiver.
  func twice(_ tokens: UnsafePointer<Float>) {
    hash.ids(of: tokens, count: members.count, into: &ids, scratch: rotated.base)
    let clusters = average(tokens)
    codes.rotate(centroids.base, count: clusters, into: received.base)
    codes.rotateBack(received.base, count: clusters, into: received.base)
  }

  /// The mean of the rows in each bucket; returns how many there are.
  private func average(_ rows: UnsafePointer<Float>) -> Int {
    let clusters = kernels.group(&clusterOf, ids, hash.functions, nil, members.count, &table, table.count)
    kernels.centroids(
      centroids.base, &counts, clusters, rows, centroids.hidden, members, clusterOf, members.count)
    return clusters
  }
}
