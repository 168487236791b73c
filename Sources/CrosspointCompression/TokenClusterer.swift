import CrosspointCore
import CrosspointTokens

/// Groups the tokens of one expert that are alike, and averages each group.
///
/// ```swift
/// try clusterer.prepare(tokens, choices: 2)                            // once per batch
/// let clusters = try clusterer.cluster(members, clusterOf: clusterOf)  // once per expert
/// clusterer.centroids(tokens.base, members, clusterOf: clusterOf, clusters: clusters, into: rows, counts: counts)
/// ```
/// Buckets depend on the rows and the seed alone: not on the processor, the other ranks or, uncentred, on which rows are
/// hashed together. Memory comes from the pool and is kept between calls: the steady state allocates nothing.
/// Source: LSH-MoE (arXiv 2411.08446), Algorithm 1.
public final class TokenClusterer {
  public private(set) var options: ClusterOptions
  public let hidden: Int
  let hash: CrossPolytopeHash
  // The batch, borrowed from its owner.
  private var tokens: UnsafePointer<Float>?
  private var preparedRows = 0
  // The rotated rows of the batch, where they are kept.
  let rotated: Scratch<Float>
  private var keepsRotatedRows = false
  // One rotated row and the mean.
  private let work: Scratch<Float>
  // Of the clusters under refinement.
  let means: Scratch<Float>
  let halfNorms: Scratch<Float>
  let counts: Scratch<Int32>
  let renumbered: Scratch<Int32>
  // Centred: one row per member. Uncentred: one row per prepared row.
  private let ids: Scratch<UInt32>
  private let table: Scratch<Int32>

  /// - Throws: `invalidArgument` where ``ClusterOptions/validate(hidden:)`` does.
  public init(options: ClusterOptions, hidden: Int, seed: UInt64, pool: BufferPool) throws(CrosspointError) {
    hash = try CrossPolytopeHash(options: options, hidden: hidden, seed: seed)
    self.options = options
    self.hidden = hidden
    rotated = Scratch(pool)
    work = Scratch(pool)
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

  /// Takes note of a batch, which must stay as it is until its rows are grouped; uncentred, hashes it.
  ///
  /// Rotated rows are kept only where they are used often enough: writing one and reading it again takes longer than half a
  /// rotation.
  /// - Parameter choices: Experts that a row may belong to.
  /// - Throws: `invalidArgument` for rows of another size, `outOfMemory`.
  public func prepare(_ tokens: borrowing TokenBatch, choices: Int = 1) throws(CrosspointError) {
    guard tokens.hidden == hidden else {
      throw CrosspointError(
        .invalidArgument, operation: "prepare", argument: "tokens", "rows of \(tokens.hidden) floats, not \(hidden)")
    }
    preparedRows = 0
    self.tokens = UnsafePointer(tokens.base)
    keepsRotatedRows = options.needsDistances || (options.centred && choices > 2)
    _ = try work.reserve(2 * hidden)
    if keepsRotatedRows {
      hash.rotation.rotate(tokens.base, count: tokens.rows, into: try rotated.reserve(tokens.rows * hidden))
    }
    preparedRows = tokens.rows
    if !options.centred {
      let ids = try ids.reserve(tokens.rows * options.functions)
      for row in 0..<tokens.rows {
        let rotated = rotatedRow(row, next: row + 1 < tokens.rows ? row + 1 : nil)
        hash.ids(ofRotated: rotated, mean: nil, into: ids + row * options.functions)
      }
    }
  }

  /// A rotated row of the batch, valid until the next call; the row `next` is fetched from memory meanwhile.
  private func rotatedRow(_ row: Int, next: Int?) -> UnsafePointer<Float> {
    if keepsRotatedRows { return UnsafePointer(rotated.base + row * hidden) }
    hash.rotation.rotate(tokens! + row * hidden, into: work.base, ahead: next.map { tokens! + $0 * hidden })
    return UnsafePointer(work.base)
  }

  /// Groups `members` (rows of the prepared batch); clusters are numbered in order of first appearance.
  ///
  /// - Parameter clusterOf: receives the cluster of each member.
  /// - Returns: the number of clusters; zero for no members.
  /// - Throws: `outOfMemory`.
  public func cluster(
    _ members: UnsafeBufferPointer<Int32>, clusterOf: UnsafeMutablePointer<Int32>
  ) throws(CrosspointError) -> Int {
    guard !members.isEmpty else { return 0 }
    for member in members {
      precondition(member >= 0 && member < preparedRows, "row \(member) of \(preparedRows)")
    }
    return try refine(members, clusterOf: clusterOf, buckets: hashBuckets(members, clusterOf))
  }

  /// Numbers the buckets of `members` in order of first appearance; returns how many there are.
  private func hashBuckets(
    _ members: UnsafeBufferPointer<Int32>, _ clusterOf: UnsafeMutablePointer<Int32>
  ) throws(CrosspointError) -> Int {
    let slots = 4 * members.count.largestPowerOfTwoWithin
    let table = try table.reserve(slots)
    let functions = options.functions
    guard options.centred else {
      return kernels.group(clusterOf, ids.base, functions, members.baseAddress, members.count, table, slots)
    }
    let ids = try ids.reserve(members.count * functions)
    let mean = rotatedMean(members)
    for (index, member) in members.enumerated() {
      let rotated = rotatedRow(Int(member), next: index + 1 < members.count ? Int(members[index + 1]) : nil)
      hash.ids(ofRotated: rotated, mean: mean, into: ids + index * functions)
    }
    return kernels.group(clusterOf, ids, functions, nil, members.count, table, slots)
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

  /// Writes the mean row of each bucket (`clusters × hidden`) and how many members it has.
  ///
  /// Sums run in member order, so that the result is bitwise repeatable; the mean of one member is that row bit for bit.
  /// `tokens` need not be the prepared rows: any rows that `members` may index.
  public func centroids(
    _ tokens: UnsafePointer<Float>, _ members: UnsafeBufferPointer<Int32>, clusterOf: UnsafePointer<Int32>,
    clusters: Int, into centroids: UnsafeMutablePointer<Float>, counts: UnsafeMutablePointer<Int32>
  ) {
    kernels.centroids(
      centroids, counts, clusters, tokens, hidden, members.baseAddress, clusterOf, members.count)
  }
}
