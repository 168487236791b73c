import Crosspoint
import CrosspointTokens

/// All rows as one expert's: clusters, residuals, and the rotations of rotated codes.
final class ClusterTrial {
  private let clusterer: TokenClusterer
  private let codes: PseudoRotation
  private let members: [Int32]
  private var clusterOf: [Int32]
  private var sizes: [Int32]
  private var centroids: Centroids
  private let row: TokenBatch

  init(options: ClusterOptions, rows: Int, hidden: Int, seed: UInt64) throws(CrosspointError) {
    let pool = BufferPool()
    clusterer = try TokenClusterer(options: options, hidden: hidden, seed: seed, pool: pool)
    codes = try PseudoRotation(hidden: hidden, rounds: 1, seed: seed)
    members = (0..<Int32(rows)).map { $0 }
    clusterOf = Array(repeating: 0, count: rows)
    sizes = clusterOf
    centroids = try Centroids(hidden: hidden, room: rows, most: rows, pool: pool)
    row = try TokenBatch(rows: 1, hidden: hidden)
  }

  /// Clusters of the last run.
  var clusters: Int { centroids.count }

  /// Hash, buckets and centroids; of rotated rows if asked for.
  func cluster(_ tokens: borrowing TokenBatch, rotated: Bool = false) throws(CrosspointError) {
    try clusterer.prepare(tokens, rotated: rotated)
    centroids.removeAll()
    let clusterer = clusterer
    _ = try members.withUnsafeBufferPointer { members throws(CrosspointError) in
      try clusterer.cluster(members, clusterOf: &clusterOf, rotated: rotated, into: &centroids)
    }
  }

  /// Clusters, and every row's residual added to a row of `outputs`; a lone member has none.
  func clusterAndCompensate(
    _ tokens: borrowing TokenBatch, into outputs: borrowing TokenBatch
  ) throws(CrosspointError) {
    try cluster(tokens)
    let hidden = tokens.hidden
    countMembers()
    for (row, cluster) in clusterOf.enumerated() where sizes[Int(cluster)] > 1 {
      kernels.axpy_difference(
        outputs.base + row * hidden, 1, tokens.base + row * hidden, centroids.base + Int(cluster) * hidden, hidden)
    }
  }

  /// Clusters, and the rotations of their codes at either end and, where residuals are measured from them, back at home: the
  /// first round of the hash's rotation, or one of their own.
  func clusterAndRotate(_ tokens: borrowing TokenBatch, together: Bool) throws(CrosspointError) {
    try cluster(tokens, rotated: together)
    let hidden = tokens.hidden
    if together { countMembers() }
    for cluster in 0..<clusters {
      let centroid = centroids.base + cluster * hidden
      if together {
        row.base.update(from: centroid, count: hidden)
        if sizes[cluster] > 1 { codes.rotateBack(centroid, count: 1, into: centroid) }
      } else {
        codes.rotate(centroid, into: row.base, ahead: cluster + 1 < clusters ? centroid + hidden : nil)
      }
      codes.rotateBack(row.base, count: 1, into: row.base)
    }
  }

  private func countMembers() {
    for cluster in 0..<clusters { sizes[cluster] = 0 }
    for cluster in clusterOf { sizes[Int(cluster)] += 1 }
  }
}
