import CrosspointCore
import CrosspointTokens

/// Groups the tokens of one expert that are alike, and averages each group.
///
/// ```swift
/// var centroids = try Centroids(hidden: 768, most: 2 * tokens.rows, pool: pool)
/// try clusterer.prepare(tokens, choices: 2)                                             // once per batch
/// let clusters = try clusterer.cluster(members, clusterOf: clusterOf, into: &centroids)  // once per expert
/// ```
/// Tokens are averaged while they are in the cache from being hashed, unless clusters depend on each other
/// (``ClusterOptions/rate``, ``ClusterOptions/refinements``).
///
/// Buckets depend on the rows and the seed alone: not on the processor, the other ranks or, uncentred, on which rows are
/// hashed together. Memory comes from the pool and is kept between calls: the steady state allocates nothing.
/// Source: LSH-MoE (arXiv 2411.08446), Algorithm 1.
package final class TokenClusterer {
  package private(set) var options: ClusterOptions
  package let hidden: Int
  let hash: CrossPolytopeHash
  // The batch, borrowed from its owner.
  private var tokens: UnsafePointer<Float>?
  private var preparedRows = 0
  // The rotated rows of the batch, where they are kept.
  let rotated: Scratch<Float>
  private var keepsRotatedRows = false
  // Whether the whole batch is hashed beforehand.
  private var hashesBatch = false
  private var rotatesBatch: Bool { keepsRotatedRows || hashesBatch }
  // One rotated row, and the mean.
  private let work: Scratch<Float>
  let tallies: Scratch<Tally>
  // Of the clusters under refinement.
  let means: Scratch<Float>
  let halfNorms: Scratch<Float>
  let counts: Scratch<Int32>
  let renumbered: Scratch<Int32>
  // One row per prepared row where the batch is hashed beforehand, else one per member.
  private let ids: Scratch<UInt32>
  private let table: Scratch<Int32>

  /// - Throws: `invalidArgument` where ``ClusterOptions/validate(hidden:)`` does.
  package init(options: ClusterOptions, hidden: Int, seed: UInt64, pool: BufferPool) throws(CrosspointError) {
    hash = try CrossPolytopeHash(options: options, hidden: hidden, seed: seed)
    self.options = options
    self.hidden = hidden
    rotated = Scratch(pool)
    work = Scratch(pool)
    tallies = Scratch(pool)
    means = Scratch(pool)
    halfNorms = Scratch(pool)
    counts = Scratch(pool)
    renumbered = Scratch(pool)
    ids = Scratch(pool)
    table = Scratch(pool)
  }

  /// Changes ``ClusterOptions/rate`` for the clusters to come.
  package func limit(rate: Float) {
    precondition(options.needsDistances, "a clusterer that was made without a rate has no use for one")
    options.rate = rate
  }

  /// How many of an expert's members are hashed before they are averaged: 64 KiB of them, which takes less time than each by
  /// itself, between two rotations.
  private func membersPerVisit(of members: Int) -> Int {
    options.needsDistances ? members : max(1, (1 << 14) / hidden)
  }

  /// Takes note of a batch, which must stay as it is until its rows are grouped.
  ///
  /// What a row that belongs to several experts has in common for them is worked out once where that is faster: its ids if
  /// they do not depend on the expert; rotated rows where they are used often enough, since writing one and reading it again
  /// takes longer than half a rotation.
  /// - Parameters:
  ///   - choices: Experts that a row may belong to.
  /// - Throws: `invalidArgument` for rows of another size, `outOfMemory`.
  package func prepare(
    _ tokens: borrowing TokenBatch, choices: Int = 1
  ) throws(CrosspointError) {
    guard tokens.hidden == hidden else {
      throw CrosspointError(
        .invalidArgument, operation: "prepare", argument: "tokens", "rows of \(tokens.hidden) floats, not \(hidden)")
    }
    preparedRows = 0
    self.tokens = UnsafePointer(tokens.base)
    hashesBatch = !options.centred && choices > 1
    keepsRotatedRows = options.needsDistances || (options.centred && choices > 2)
    try work.reserve(2 * hidden)
    if keepsRotatedRows { try self.rotated.reserve(tokens.rows * hidden) }
    if hashesBatch { try ids.reserve(tokens.rows * options.functions) }
    if rotatesBatch {
      for row in 0..<tokens.rows {
        rotate(row, next: row + 1 < tokens.rows ? row + 1 : nil)
        if hashesBatch {
          hash.ids(ofRotated: rotatedRow(row), mean: nil, into: ids.base + row * options.functions)
        }
      }
    }
    preparedRows = tokens.rows
  }

  /// Rotates a row of the batch to where it is kept, or over the last one; the row `next` is fetched from memory meanwhile.
  private func rotate(_ row: Int, next: Int?) {
    hash.rotation.rotate(
      tokens! + row * hidden, into: rotatedRow(row), ahead: next.map { tokens! + $0 * hidden })
  }

  /// A rotated row that is kept, or was the last to be rotated.
  private func rotatedRow(_ row: Int) -> UnsafeMutablePointer<Float> {
    keepsRotatedRows ? rotated.base + row * hidden : work.base
  }

  /// Groups `members` (rows of the prepared batch) and appends the mean row of each group.
  ///
  /// Clusters are numbered in order of first appearance. Sums run in member order, so that the result is bitwise repeatable;
  /// the mean of one member is its row bit for bit.
  /// - Parameters:
  ///   - clusterOf: receives the cluster of each member.
  ///   - centroids: those of the experts before.
  /// - Returns: the number of clusters; zero for no members.
  /// - Throws: `outOfMemory`.
  package func cluster(
    _ members: UnsafeBufferPointer<Int32>, clusterOf: UnsafeMutablePointer<Int32>, into centroids: inout Centroids
  ) throws(CrosspointError) -> Int {
    guard !members.isEmpty else { return 0 }
    for member in members {
      precondition(member >= 0 && member < preparedRows, "row \(member) of \(preparedRows)")
    }
    try tallies.reserve(members.count)
    let first = centroids.count
    var buckets = try buckets(of: members, clusterOf)
    let mean = options.centred ? rotatedMean(members) : nil
    let length = membersPerVisit(of: members.count)
    for start in stride(from: 0, to: members.count, by: length) {
      let visit = start..<min(start + length, members.count)
      findBuckets(visit, of: members, mean: mean, &buckets)
      if options.needsDistances { try refine(members, clusterOf: clusterOf, buckets: buckets.count) }
      for index in visit {
        try add(tokens! + Int(members[index]) * hidden, to: Int(clusterOf[index]), first: first, of: &centroids)
      }
    }
    return divide(first: first, of: &centroids)
  }

  /// An empty table for the buckets of `members`.
  private func buckets(
    of members: UnsafeBufferPointer<Int32>, _ clusterOf: UnsafeMutablePointer<Int32>
  ) throws(CrosspointError) -> BucketTable {
    BucketTable(
      ids: hashesBatch ? ids.base : try ids.reserve(members.count * options.functions), functions: options.functions,
      rows: hashesBatch ? members.baseAddress : nil, members: members.count,
      slots: try table.reserve(BucketTable.slots(members: members.count)), bucketOf: clusterOf)
  }

  /// Finds the buckets of the members of a visit; rotates and hashes them, unless that has been done.
  private func findBuckets(
    _ visit: Range<Int>, of members: UnsafeBufferPointer<Int32>, mean: UnsafePointer<Float>?,
    _ buckets: inout BucketTable
  ) {
    for index in visit {
      let row = Int(members[index])
      if !hashesBatch {
        if !keepsRotatedRows {
          rotate(row, next: index + 1 < members.count ? Int(members[index + 1]) : nil)
        }
        hash.ids(ofRotated: rotatedRow(row), mean: mean, into: ids.base + index * options.functions)
      }
      buckets.add(index)
    }
  }

  /// The mean of a sample of `members`, rotated.
  private func rotatedMean(_ members: UnsafeBufferPointer<Int32>) -> UnsafePointer<Float> {
    let mean = work.base + hidden
    mean.update(repeating: 0, count: hidden)
    let sample = MeanSample(of: members.count)
    for index in sample.indices { kernels.axpy(mean, 1, tokens! + Int(members[index]) * hidden, hidden) }
    kernels.scale(mean, 1 / Float(sample.count), mean, hidden)
    hash.rotation.rotate(mean, into: mean)
    return UnsafePointer(mean)
  }
}
