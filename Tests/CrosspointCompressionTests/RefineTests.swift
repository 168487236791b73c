import CCrosspointKernels
import CrosspointCompression
import CrosspointCore
import CrosspointTestSupport
import CrosspointTokens
import Testing

@Suite struct RefineTests {
  private static func clusters(_ tokens: borrowing TokenBatch, _ options: ClusterOptions) throws -> (Int, [Int32]) {
    let clusterer = try TokenClusterer(options: options, hidden: tokens.hidden, seed: 3, pool: BufferPool())
    try clusterer.prepare(tokens)
    var centroids = try Centroids(hidden: tokens.hidden, most: tokens.rows, pool: BufferPool())
    var clusterOf = [Int32](repeating: -1, count: tokens.rows)
    let count = try (0..<Int32(tokens.rows)).map { $0 }.withUnsafeBufferPointer { members in
      try clusterer.cluster(members, clusterOf: &clusterOf, into: &centroids)
    }
    return (count, clusterOf)
  }

  /// Σ‖x − c‖² in double precision.
  private static func residual(_ tokens: borrowing TokenBatch, _ clusterOf: [Int32], _ count: Int) -> Double {
    let hidden = tokens.hidden
    var sums = [Double](repeating: 0, count: count * hidden)
    var sizes = [Double](repeating: 0, count: count)
    for (row, cluster) in clusterOf.enumerated() {
      sizes[Int(cluster)] += 1
      for d in 0..<hidden { sums[Int(cluster) * hidden + d] += Double(tokens.row(row)[d]) }
    }
    var total = 0.0
    for (row, cluster) in clusterOf.enumerated() {
      for d in 0..<hidden {
        let difference = Double(tokens.row(row)[d]) - sums[Int(cluster) * hidden + d] / sizes[Int(cluster)]
        total += difference * difference
      }
    }
    return total
  }

  @Test(arguments: [0.05, 0.1, 0.5, 1] as [Float], [true, false])
  func neverMoreClustersThanTheRateAllows(rate: Float, centred: Bool) throws {
    let tokens = try randomBatch(rows: 200, hidden: 32, seed: 1)
    for refinements in [0, 1, 3] {
      let options = ClusterOptions(functions: 2, centred: centred, rate: rate, refinements: refinements)
      let (count, clusterOf) = try Self.clusters(tokens, options)
      #expect(count >= 1 && count <= Int(200 * rate))
      // Every number occurs, in order of first appearance.
      var next: Int32 = 0
      for cluster in clusterOf {
        #expect(cluster >= 0 && cluster <= next)
        if cluster == next { next += 1 }
      }
      #expect(Int(next) == count)
    }
  }

  @Test func aSingleTokenIsAClusterAtAnyRate() throws {
    let (count, clusterOf) = try Self.clusters(
      randomBatch(rows: 1, hidden: 8, seed: 1), ClusterOptions(rate: 0.01, refinements: 2))
    #expect(count == 1)
    #expect(clusterOf == [0])
  }

  @Test func refiningNeverEnlargesTheResidual() throws {
    for seed in 0..<5 {
      let tokens = try clusteredBatch(rows: 300, hidden: 48, kinds: 40, noise: 0.5, seed: UInt64(seed))
      var last = Double.infinity
      for refinements in 0..<4 {
        let options = ClusterOptions(rate: 0.1, refinements: refinements)
        let (count, clusterOf) = try Self.clusters(tokens, options)
        let residual = Self.residual(tokens, clusterOf, count)
        #expect(residual <= last * 1.0001)
        last = residual
      }
    }
  }

  /// A row whose square no float holds is far from the others like any that is merely large, and leaves their means alone.
  @Test(arguments: [true, false], [0, 1, 3]) func aHugeRowIsClusteredLikeALargeOne(centred: Bool, refinements: Int)
    throws
  {
    func clusters(_ size: Float) throws -> (Int, [Int32]) {
      let tokens = try clusteredBatch(rows: 200, hidden: 48, kinds: 20, noise: 0.3, seed: 6)
      for row in [7, 90] { for d in 0..<48 { tokens.row(row)[d] *= row == 7 ? size : -size } }
      return try Self.clusters(tokens, ClusterOptions(centred: centred, rate: 0.2, refinements: refinements))
    }
    let large = try clusters(1e12)
    for size in [Float(1e20), 1e25, 1e30, 0x1p110] {
      let huge = try clusters(size)
      #expect(huge == large, "\(size)")
    }
    if refinements > 1 {
      #expect(large.1.count { $0 == large.1[7] } == 1 && large.1.count { $0 == large.1[90] } == 1)
    }
  }

  @Test func theNearestCentroidIsTheNearestInEveryVariant() throws {
    for (hidden, count) in [(1, 1), (3, 5), (16, 4), (33, 9), (128, 38)] {
      let centroids = randomFloats(count * hidden, seed: 5)
      let halfNorms = (0..<count).map { c in
        (0..<hidden).reduce(Float(0)) { $0 + centroids[c * hidden + $1] * centroids[c * hidden + $1] } / 2
      }
      for seed in 0..<20 {
        let x = randomFloats(hidden, seed: UInt64(seed))
        let scores = (0..<count).map { c in
          (0..<hidden).reduce(0.0) { $0 + Double(x[$1]) * Double(centroids[c * hidden + $1]) } - Double(halfNorms[c])
        }
        var answers: Set<Int> = []
        for variant in [XP_SCALAR, XP_AVX2, XP_AVX512, XP_NEON] {
          guard let table = xp_kernels_variant(variant) else { continue }
          answers.insert(table.pointee.nearest(x, centroids, halfNorms, count, hidden))
        }
        #expect(answers.count == 1)
        #expect(scores[answers.first!] >= scores.max()! - 1e-4)
      }
    }
  }

  @Test func ratesAndPassesOutOfRangeAreRefused() {
    for rate in [0, -1, 1.5, Float.nan] {
      #expect(throws: CrosspointError.self) { try ClusterOptions(rate: rate).validate(hidden: 16) }
    }
    #expect(throws: CrosspointError.self) { try ClusterOptions(refinements: -1).validate(hidden: 16) }
  }
}
