import Crosspoint
import CrosspointTokens

/// All rows as one expert's: clusters and residuals.
final class ClusterTrial {
  private let clusterer: TokenClusterer
  private let members: [Int32]
  private var clusterOf: [Int32]
  private var sizes: [Int32]
  private var centroids: Centroids

  init(options: ClusterOptions, rows: Int, hidden: Int, seed: UInt64) throws(CrosspointError) {
    let pool = BufferPool()
    clusterer = try TokenClusterer(options: options, hidden: hidden, seed: seed, pool: pool)
    members = (0..<Int32(rows)).map { $0 }
    clusterOf = Array(repeating: 0, count: rows)
    sizes = clusterOf
    centroids = try Centroids(hidden: hidden, capacity: rows, most: rows, pool: pool)
  }

  /// Clusters of the last run.
  var clusters: Int { centroids.count }

  /// Hash, buckets and centroids.
  func cluster(_ tokens: borrowing TokenBatch) throws(CrosspointError) {
    try clusterer.prepare(tokens)
    centroids.removeAll()
    let clusterer = clusterer
    _ = try members.withUnsafeBufferPointer { members throws(CrosspointError) in
      try clusterer.cluster(members, clusterOf: &clusterOf, into: &centroids)
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

  private func countMembers() {
    for cluster in 0..<clusters { sizes[cluster] = 0 }
    for cluster in clusterOf { sizes[Int(cluster)] += 1 }
  }
}
