import CrosspointCore
import CrosspointTestSupport
import CrosspointTokens
import Testing

@testable import CrosspointCompression

@Test(arguments: [1, 2, 6])
func `buckets are numbered by first appearance and join equal tuples only`(functions: Int) {
  var generator = SplitMix64(seed: 1)
  for count in [1, 2, 3, 100, 1000] {
    let ids = (0..<2 * count * functions).map { _ in UInt32(generator.next() % 7) }
    let rows = (0..<count).map { _ in Int32(generator.next() % UInt64(2 * count)) }
    let expected = slowGroups(rows.map { Array(ids[Int($0) * functions..<(Int($0) + 1) * functions]) })
    var slots = [Int32](repeating: 5, count: BucketTable.slots(members: count))
    #expect(slots.count > count)
    var bucketOf = [Int32](repeating: -9, count: count)
    slots.withUnsafeMutableBufferPointer { slots in
      bucketOf.withUnsafeMutableBufferPointer { bucketOf in
        var table = BucketTable(
          ids: ids, functions: functions, rows: rows, members: count, slots: slots.baseAddress!,
          bucketOf: bucketOf.baseAddress!)
        for member in 0..<count { table.add(member) }
        #expect(table.count == Int((expected.max() ?? -1) + 1))
      }
    }
    #expect(bucketOf == expected)
  }
}

@Test(arguments: [false, true], [(24, 200), (100, 200), (24, 800)])
func `clusters are the tokens whose ids agree`(centred: Bool, shape: (hidden: Int, rows: Int)) throws {
  let hidden = shape.hidden
  let options = ClusterOptions(functions: 2, width: 6, centred: centred)
  let tokens = try clouds(rows: shape.rows, hidden: hidden, centres: 12, noise: 0.3, offset: 1, seed: 2)
  let members = (0..<Int32(shape.rows)).filter { !$0.isMultiple(of: 3) }.reversed() + []
  let result = try clusters(options, tokens, members)
  #expect(try clusters(options, tokens, members, choices: 3).clusterOf == result.clusterOf, "rotated rows are kept")

  let rotation = try PseudoRotation(hidden: hidden, rounds: options.rounds, seed: 9)
  let rotated = rotation.rotated(tokens.array)
  // Of at most 256 evenly spaced members.
  let sample = stride(from: 0, to: members.count, by: (members.count + 255) / 256).map { Int(members[$0]) }
  var mean = [Float](repeating: 0, count: hidden)
  for member in sample { for c in 0..<hidden { mean[c] += tokens.row(member)[c] } }
  mean = rotation.rotated(mean.map { $0 * (1 / Float(sample.count)) })
  let ids = members.map { member in
    (0..<2).map { function in
      let block = (0..<6).map { i in
        let c = function * 6 + i
        return rotated[Int(member) * hidden + c] - (centred ? mean[c] : 0)
      }
      var best = 0
      for i in 1..<6 where abs(block[i]) > abs(block[best]) { best = i }
      return UInt32(best + (block[best] < 0 ? 6 : 0))
    }
  }
  #expect(result.clusterOf == slowGroups(ids))
  #expect(result.count > 1)
}

@Test func `uncentred clusters do not depend on the batch around them`() throws {
  let tokens = try clouds(rows: 90, hidden: 48, centres: 10, noise: 0.1, offset: 0, seed: 3)
  let whole = try clusters(.lshMoE, tokens, Array(30..<60))
  let part = try TokenBatch(Array(tokens.array[30 * 48..<60 * 48]), hidden: 48)
  #expect(try clusters(.lshMoE, part, Array(0..<30)).clusterOf == whole.clusterOf)
}

@Test func `centring undoes a strong common mean`() throws {
  let tokens = try clouds(rows: 400, hidden: 64, centres: 40, noise: 0.1, offset: 20, seed: 4)
  let all = Array(0..<400 as Range<Int32>)
  let uncentred = try clusters(ClusterOptions(centred: false), tokens, all).count
  let centred = try clusters(ClusterOptions(centred: true), tokens, all).count
  #expect(uncentred < 10)
  #expect(centred > 20)
}

@Test func `more functions never give fewer clusters`() throws {
  let tokens = try clouds(rows: 300, hidden: 128, centres: 20, noise: 0.5, offset: 0, seed: 5)
  var last = 0
  for functions in 1...8 {
    let options = ClusterOptions(functions: functions, width: 16, centred: false)
    let count = try clusters(options, tokens, Array(0..<300)).count
    #expect(count >= last)
    last = count
  }
  #expect(last > 20)
}

/// Hidden sizes of which a visit holds all members, some, and one.
@Test(arguments: [24, 640, 20_000])
func `centroids are means in member order`(hidden: Int) throws {
  let rows = hidden > 1000 ? 30 : 150
  let tokens = try clouds(
    rows: rows, hidden: hidden, centres: 11, noise: hidden > 1000 ? 0.02 : 0.5, offset: 0, seed: 6)
  let members = (0..<Int32(rows)).filter { !$0.isMultiple(of: 4) }.reversed() + []
  let source = tokens.array
  let options = [
    ClusterOptions(functions: 2), ClusterOptions(functions: 2, centred: false),
    ClusterOptions(functions: 2, rate: 0.6, refinements: 1),
  ]
  for (options, choices) in options.flatMap({ [($0, 1), ($0, 3)] }) {
    let result = try clusters(options, tokens, members, choices: choices)
    var sums = [Float](repeating: 0, count: result.count * hidden)
    var isFirst = [Bool](repeating: true, count: result.count)
    for (member, cluster) in zip(members, result.clusterOf) {
      for c in 0..<hidden {
        let value = source[Int(member) * hidden + c]
        let place = Int(cluster) * hidden + c
        sums[place] = isFirst[Int(cluster)] ? value : sums[place] + value
      }
      isFirst[Int(cluster)] = false
    }
    let means = sums.indices.map {
      let size = result.counts[$0 / hidden]
      return size == 1 ? sums[$0] : sums[$0] * (1 / Float(size))
    }
    #expect(firstBitDifference(result.centroids, means) == nil)
    #expect(result.counts.contains(1) && result.counts.contains { $0 > 1 })
  }
}

@Test func `what averaging leaves out is measured`() throws {
  let (rows, hidden) = (300, 96)
  let tokens = try clouds(rows: rows, hidden: hidden, centres: 40, noise: 0.3, offset: 0, seed: 12)
  let result = try clusters(ClusterOptions(functions: 2), tokens, Array(0..<Int32(rows)))
  var (residual, energy) = (0.0, 0.0)
  for row in 0..<rows {
    for c in 0..<hidden {
      let x = Double(tokens.row(row)[c])
      let difference = x - Double(result.centroids[Int(result.clusterOf[row]) * hidden + c])
      residual += difference * difference
      energy += x * x
    }
  }
  #expect(residual > 0.01 * energy)
  #expect(abs(result.residualSquared - residual) < 1e-6 * energy)
  #expect(abs(result.tokenSquared - energy) < 1e-6 * energy)
  let alone = try clusters(ClusterOptions(functions: 8), randomBatch(rows: 20, hidden: 512, seed: 3), Array(0..<20))
  #expect(alone.count == 20)
  #expect(alone.residualSquared == 0)
}

/// Squares of such rows leave the range of a float.
@Test(arguments: [Float(1e20), 1e30, 0x1p112]) func `what averaging huge rows leaves out is measured too`(
  size: Float
) throws {
  let (rows, hidden) = (60, 32)
  func measured(_ size: Float) throws -> Clusters {
    let tokens = try clouds(rows: rows, hidden: hidden, centres: 12, noise: 0.1, offset: 0, seed: 13)
    for index in 0..<rows * hidden { tokens.base[index] *= size }
    return try clusters(ClusterOptions(functions: 1, centred: false), tokens, Array(0..<Int32(rows)))
  }
  let (small, large) = (try measured(1), try measured(size))
  #expect(small.clusterOf == large.clusterOf && small.residualSquared > 0)
  for (plain, huge) in [(small.residualSquared, large.residualSquared), (small.tokenSquared, large.tokenSquared)] {
    #expect(abs(huge / (Double(size) * Double(size)) / plain - 1) < 1e-3, "\(huge) of \(plain)")
  }
}

@Test func `experts' centroids follow one another, in memory that grows`() throws {
  let (rows, hidden) = (400, 32)
  let tokens = try randomBatch(rows: rows, hidden: hidden, seed: 14)
  let pool = BufferPool()
  let clusterer = try TokenClusterer(
    options: ClusterOptions(functions: 4, centred: false), hidden: hidden, seed: 9, pool: pool)
  try clusterer.prepare(tokens)
  var centroids = try Centroids(hidden: hidden, most: rows, pool: pool)
  var expected: [Float] = []
  var clusterOf = [Int32](repeating: 0, count: rows)
  for start in stride(from: 0, to: Int32(rows), by: 100) {
    let members = Array(start..<start + 100)
    try members.withUnsafeBufferPointer {
      let before = centroids.count
      let count = try clusterer.cluster($0, clusterOf: &clusterOf, into: &centroids)
      #expect(centroids.count == before + count)
    }
    expected += try clusters(ClusterOptions(functions: 4, centred: false), tokens, members).centroids
  }
  #expect(expected.count == centroids.count * hidden)
  #expect(centroids.count > 64)
  let all = UnsafeBufferPointer(start: centroids.base, count: expected.count)
  #expect(firstBitDifference(Array(all), expected) == nil)
}

@Test func `residuals of a cluster sum to zero and a lone member is its own centroid`() throws {
  let hidden = 40
  let tokens = try clouds(rows: 120, hidden: hidden, centres: 15, noise: 0.2, offset: 0, seed: 7)
  let oddities: [Float] = [-0.0, .nan, .leastNonzeroMagnitude, -.leastNonzeroMagnitude * 1000, .infinity]
  _ = tokens.row(119).update(fromContentsOf: oddities)
  let result = try clusters(ClusterOptions(functions: 2, centred: false), tokens, Array(0..<120))
  #expect(result.counts.reduce(0, +) == 120)
  #expect(result.counts.contains { $0 > 2 })
  for cluster in 0..<result.count {
    let members = (0..<120).filter { result.clusterOf[$0] == Int32(cluster) }
    let centroid = Array(result.centroids[cluster * hidden..<(cluster + 1) * hidden])
    #expect(Int(result.counts[cluster]) == members.count)
    if members.count == 1 {
      #expect(firstBitDifference(centroid, Array(tokens.row(members[0]))) == nil)
    } else {
      for c in 0..<hidden {
        #expect(abs(members.reduce(0) { $0 + tokens.row($1)[c] - centroid[c] }) < 1e-4)
      }
    }
  }
  #expect(result.counts[Int(result.clusterOf[119])] == 1)
}

@Test(arguments: [false, true])
func `equal rows share a cluster: zeros, constants, denormals`(centred: Bool) throws {
  for value in [0, -3, .leastNonzeroMagnitude, Float.greatestFiniteMagnitude * 1e-3] as [Float] {
    let tokens = try TokenBatch([Float](repeating: value, count: 20 * 12), hidden: 12)
    let result = try clusters(ClusterOptions(functions: 3, centred: centred), tokens, Array(0..<20))
    #expect(result.count == 1)
  }
}

@Test(arguments: [false, true])
func `a warm clusterer allocates nothing`(centred: Bool) throws {
  let pool = BufferPool()
  let clusterer = try TokenClusterer(
    options: ClusterOptions(functions: 2, centred: centred), hidden: 32, seed: 1, pool: pool)
  let tokens = try randomBatch(rows: 64, hidden: 32, seed: 8)
  var clusterOf = [Int32](repeating: 0, count: 64)
  func step() throws {
    try clusterer.prepare(tokens, choices: 3)
    var centroids = try Centroids(hidden: 32, most: 90, pool: pool)
    for count in [0, 1, 20, 64, 5] {
      let members = Array(0..<Int32(count))
      try members.withUnsafeBufferPointer { _ = try clusterer.cluster($0, clusterOf: &clusterOf, into: &centroids) }
    }
  }
  try step()
  let warm = pool.allocations
  for _ in 0..<5 { try step() }
  #expect(pool.allocations == warm)
}

@Test(arguments: [false, true])
func `no tokens and no members make no clusters`(centred: Bool) throws {
  let options = ClusterOptions(centred: centred)
  #expect(try clusters(options, TokenBatch(rows: 0, hidden: 8), []).count == 0)
  #expect(try clusters(options, TokenBatch(rows: 3, hidden: 8), []).count == 0)
}

@Test func `rows of another size and a full pool are refused`() throws {
  let clusterer = try TokenClusterer(options: .init(), hidden: 64, seed: 1, pool: BufferPool(capacity: 4096))
  let wrong = try TokenBatch(rows: 2, hidden: 8)
  let misfit = #expect(throws: CrosspointError.self) { try clusterer.prepare(wrong) }
  #expect(misfit?.argument == "tokens")
  let large = try TokenBatch(rows: 100, hidden: 64)
  let full = #expect(throws: CrosspointError.self) { try clusterer.prepare(large, choices: 3) }
  #expect(full?.code == .outOfMemory)
}

@Test func `compensation reads back what it prints`() {
  for compensation in [.none, .identity, .lowRank(3)] as [ResidualCompensation] {
    #expect(ResidualCompensation(compensation.description) == compensation)
  }
  #expect(ResidualCompensation("identity ") == nil)
  #expect(ResidualCompensation("") == nil)
}

// MARK: - Helpers

private struct Clusters {
  var count: Int
  var clusterOf: [Int32]
  var centroids: [Float]
  var counts: [Int32]
  var tokenSquared: Double
  var residualSquared: Double
}

private func clusters(
  _ options: ClusterOptions, _ tokens: borrowing TokenBatch, _ members: [Int32], choices: Int = 1
) throws -> Clusters {
  let clusterer = try TokenClusterer(options: options, hidden: tokens.hidden, seed: 9, pool: BufferPool())
  try clusterer.prepare(tokens, choices: choices)
  var clusterOf = [Int32](repeating: -1, count: members.count)
  var centroids = try Centroids(hidden: clusterer.hidden, most: members.count, pool: BufferPool())
  let count = try members.withUnsafeBufferPointer {
    try clusterer.cluster($0, clusterOf: &clusterOf, into: &centroids)
  }
  #expect(centroids.count == count)
  return Clusters(
    count: count, clusterOf: clusterOf,
    centroids: Array(UnsafeBufferPointer(start: centroids.base, count: count * clusterer.hidden)),
    counts: (0..<count).map { cluster in Int32(clusterOf.count { $0 == cluster }) },
    tokenSquared: centroids.tokenSquared, residualSquared: centroids.residualSquared)
}

/// Rows scattered around a few random centres, all moved by one common offset.
private func clouds(
  rows: Int, hidden: Int, centres: Int, noise: Float, offset: Float, seed: UInt64
) throws -> TokenBatch {
  let centre = randomFloats(centres * hidden, seed: seed)
  let common = randomFloats(hidden, seed: seed + 2)
  var elements = randomFloats(rows * hidden, seed: seed + 1)
  for index in elements.indices {
    let (row, c) = (index / hidden, index % hidden)
    elements[index] = centre[row % centres * hidden + c] + noise * elements[index] + offset * common[c]
  }
  return try TokenBatch(elements, hidden: hidden)
}

private func slowGroups(_ ids: [[UInt32]]) -> [Int32] {
  var numbers: [[UInt32]: Int32] = [:]
  return ids.map { id in
    let number = numbers[id] ?? Int32(numbers.count)
    numbers[id] = number
    return number
  }
}
