import CrosspointCore
import CrosspointTokens

/// From buckets to better clusters: at most so many, each token with its nearest centroid.
extension TokenClusterer {
  /// Merges and refines the hashed buckets of `members`.
  ///
  /// Where there are more buckets than ``ClusterOptions/rate`` allows, the most populous stay (among equals the first to
  /// appear) and the members of the others move to the nearest. Each of ``ClusterOptions/refinements`` passes then moves
  /// every member to the cluster with the nearest mean (Lloyd's algorithm): fewer rows for the same residual than buckets
  /// give, at `members · clusters · hidden` multiplications a pass.
  ///
  /// - Parameter clusterOf: buckets on entry, clusters on return, numbered in order of first appearance.
  func refine(
    _ members: UnsafeBufferPointer<Int32>, clusterOf: UnsafeMutablePointer<Int32>, buckets: Int
  ) throws(CrosspointError) {
    let allowed = options.mostClusters(of: members.count)
    guard buckets > allowed || options.refinements > 0 else { return }
    let counts = try counts.reserve(buckets)
    let renumbered = try renumbered.reserve(buckets)
    let means = try means.reserve(buckets * hidden)
    let halfNorms = try halfNorms.reserve(buckets)
    let scale = scale(of: members)

    var clusters = buckets
    if buckets > allowed {
      averageRotated(members, clusterOf, buckets, means, counts)
      clusters = keepMostPopulous(allowed, of: buckets, means: means, counts: counts, order: renumbered)
      assignNearest(members, clusterOf, clusters, means, halfNorms, scale)
    }
    for _ in 0..<options.refinements {
      clusters = renumber(members, clusterOf, clusters, renumbered)
      averageRotated(members, clusterOf, clusters, means, counts)
      assignNearest(members, clusterOf, clusters, means, halfNorms, scale)
    }
    _ = renumber(members, clusterOf, clusters, renumbered)
  }

  /// Means of the rotated rows of each cluster.
  private func averageRotated(
    _ members: UnsafeBufferPointer<Int32>, _ clusterOf: UnsafePointer<Int32>, _ clusters: Int,
    _ means: UnsafeMutablePointer<Float>, _ counts: UnsafeMutablePointer<Int32>
  ) {
    counts.update(repeating: 0, count: clusters)
    for (index, member) in members.enumerated() {
      let row = rotated.base + Int(member) * hidden
      let cluster = Int(clusterOf[index])
      let mean = means + cluster * hidden
      if counts[cluster] == 0 { mean.update(from: row, count: hidden) } else { kernels.axpy(mean, 1, row, hidden) }
      counts[cluster] += 1
    }
    for cluster in 0..<clusters where counts[cluster] > 1 {
      let mean = means + cluster * hidden
      kernels.scale(mean, 1 / Float(counts[cluster]), mean, hidden)
    }
  }

  /// Moves the means of the most populous buckets to the front; returns how many stay.
  private func keepMostPopulous(
    _ allowed: Int, of buckets: Int, means: UnsafeMutablePointer<Float>, counts: UnsafePointer<Int32>,
    order: UnsafeMutablePointer<Int32>
  ) -> Int {
    var order = UnsafeMutableBufferPointer(start: order, count: buckets)
    for bucket in 0..<buckets { order[bucket] = Int32(bucket) }
    order.sort { (counts[Int($0)], $1) > (counts[Int($1)], $0) }
    // In rising order no mean is overwritten before it has moved.
    order[..<allowed].sort()
    for (place, bucket) in order[..<allowed].enumerated() where place != bucket {
      (means + place * hidden).update(from: means + Int(bucket) * hidden, count: hidden)
    }
    return allowed
  }

  /// The power of two that brings every product of a member and a mean into the range of a float: 1 unless rows are huge.
  private func scale(of members: UnsafeBufferPointer<Int32>) -> Float {
    var most = 1.0
    for member in members {
      let energy = energy(of: rotated.base + Int(member) * hidden)
      if energy.isFinite { most = max(most, energy) }
    }
    return Float(sign: .plus, exponent: max(-126, min(0, 125 - Int(most.exponent))), significand: 1)
  }

  /// Moves every member to the nearest mean; both sides of the comparison are taken times `scale`, and so are the means.
  private func assignNearest(
    _ members: UnsafeBufferPointer<Int32>, _ clusterOf: UnsafeMutablePointer<Int32>, _ clusters: Int,
    _ means: UnsafeMutablePointer<Float>, _ halfNorms: UnsafeMutablePointer<Float>, _ scale: Float
  ) {
    for cluster in 0..<clusters {
      let mean = means + cluster * hidden
      halfNorms[cluster] = Float(energy(of: mean) / 2 * Double(scale))
      if scale < 1 { kernels.scale(mean, scale, mean, hidden) }
    }
    for (index, member) in members.enumerated() {
      let row = rotated.base + Int(member) * hidden
      clusterOf[index] = Int32(kernels.nearest(row, means, halfNorms, clusters, hidden))
    }
  }

  /// Numbers the clusters that still have members in order of first appearance; returns how many there are.
  private func renumber(
    _ members: UnsafeBufferPointer<Int32>, _ clusterOf: UnsafeMutablePointer<Int32>, _ clusters: Int,
    _ numbers: UnsafeMutablePointer<Int32>
  ) -> Int {
    numbers.update(repeating: -1, count: clusters)
    var next: Int32 = 0
    for index in members.indices {
      let cluster = Int(clusterOf[index])
      if numbers[cluster] < 0 {
        numbers[cluster] = next
        next += 1
      }
      clusterOf[index] = numbers[cluster]
    }
    return Int(next)
  }
}
