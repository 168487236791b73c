import CCrosspointKernels
import CrosspointCompression
import CrosspointCore
import CrosspointTestSupport
import CrosspointTokens
import Testing

@Test(arguments: [1, 2, 5, 15, 16, 17, 64, 100, 128, 1000])
func `every kernel finds the largest coordinate of each block`(width: Int) {
  let functions = 3
  for seed in 0..<20 as Range<UInt64> {
    // Few distinct values, so that ties are common.
    let row = randomFloats(functions * width, seed: seed).map { ($0 * 4).rounded() }
    let mean = randomFloats(functions * width, seed: seed + 100).map { $0.rounded() }
    let difference = zip(row, mean).map { $0 - $1 }
    forEachKernelVariant { kernels in
      var ids = [UInt32](repeating: .max, count: functions)
      kernels.cross_polytope(&ids, row, nil, width, functions)
      #expect(ids == slowIDs(row, width: width))
      kernels.cross_polytope(&ids, row, mean, width, functions)
      #expect(ids == slowIDs(difference, width: width))
    }
  }
}

@Test func `odd values have ids too, the same on every kernel`() {
  let tiny = Float.leastNonzeroMagnitude
  let cases: [(value: Float, place: Int, id: UInt32)] = [
    (0, 5, 0), (-0.0, 0, 0), (tiny, 19, 19), (-tiny, 3, 23), (.infinity, 7, 7), (-.infinity, 18, 38), (.nan, 2, 2),
  ]
  for (value, place, id) in cases {
    var row = [Float](repeating: 0, count: 20)
    row[place] = value
    forEachKernelVariant { kernels in
      var ids: [UInt32] = [99]
      kernels.cross_polytope(&ids, row, nil, 20, 1)
      #expect(ids == [id])
    }
  }
}

@Test func `ids depend on the row and the seed, not on the rows beside it`() throws {
  let hash = try CrossPolytopeHash(options: ClusterOptions(functions: 4), hidden: 100, seed: 3)
  let rows = randomFloats(50 * 100, seed: 1)
  let together = hash.ids(rows)
  let alone = (0..<50).flatMap { hash.ids(Array(rows[$0 * 100..<($0 + 1) * 100])) }
  #expect(together == alone)
  #expect(try CrossPolytopeHash(options: ClusterOptions(functions: 4), hidden: 100, seed: 4).ids(rows) != together)
}

@Test func `ids look only at the direction of a row`() throws {
  let hash = try CrossPolytopeHash(options: .lshMoE, hidden: 96, seed: 3)
  let rows = randomFloats(96, seed: 1)
  #expect(hash.ids(rows) == hash.ids(rows.map { $0 * 8 }))
  #expect(hash.ids(rows) != hash.ids(rows.map { -$0 }))
}

// A Monte Carlo measurement of an independent implementation: cosine against the probability that two rows share an id.
private let cosines: [Float] = [0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.999]
private let measured: [Int: [Double]] = [
  1024: [0.037, 0.109, 0.191, 0.351, 0.502, 0.654, 0.753, 0.912],
  128: [0.076, 0.173, 0.277, 0.422, 0.573, 0.717, 0.791, 0.934],
]

/// 1500 rows with 2 partners each: three standard errors are at most 0.03, and the table has errors of its own.
@Test(arguments: [1024, 128])
func `collision rates of one full-width function are within 0.035 of the measured table`(hidden: Int) throws {
  let rotation = try PseudoRotation(hidden: hidden, rounds: 3, seed: 20)
  let (count, partners) = (1500, 2)
  let rows = rotation.rotated(randomFloats(count * hidden, seed: 21))
  var collisions = [Int](repeating: 0, count: cosines.count)
  rows.withUnsafeBufferPointer { rows in
    var normal = [Float](repeating: 0, count: hidden)
    var mixed = normal
    for first in 0..<count {
      let x = rows.baseAddress! + first * hidden
      let energy = kernels.dot(x, x, hidden)
      let id = largestCoordinate(x, hidden)
      for partner in 1...partners {
        // The part of another row that is orthogonal to x, as long as x.
        let z = rows.baseAddress! + (first + partner) % count * hidden
        kernels.scale(&normal, 1, z, hidden)
        kernels.axpy(&normal, -kernels.dot(x, z, hidden) / energy, x, hidden)
        let stretch = (energy / kernels.dot(normal, normal, hidden)).squareRoot()
        for (index, cosine) in cosines.enumerated() {
          kernels.scale(&mixed, cosine, x, hidden)
          kernels.axpy(&mixed, (1 - cosine * cosine).squareRoot() * stretch, normal, hidden)
          if largestCoordinate(mixed, hidden) == id { collisions[index] += 1 }
        }
      }
    }
  }
  for (index, expected) in (measured[hidden] ?? []).enumerated() {
    let rate = Double(collisions[index]) / Double(count * partners)
    #expect(abs(rate - expected) < 0.035, "cosine \(cosines[index])")
  }
}

@Test func `widths default to what fits`() {
  #expect(ClusterOptions(functions: 1).resolvedWidth(hidden: 1000) == 1000)
  #expect(ClusterOptions(functions: 2).resolvedWidth(hidden: 1000) == 256)
  #expect(ClusterOptions.lshMoE.resolvedWidth(hidden: 1024) == 128)
  #expect(ClusterOptions.lshMoE.resolvedWidth(hidden: 384) == 64)
  #expect(ClusterOptions(functions: 7).resolvedWidth(hidden: 7) == 1)
  #expect(ClusterOptions(functions: 2, width: 30).resolvedWidth(hidden: 64) == 30)
}

@Test func `options out of range are refused by name`() {
  let cases: [(ClusterOptions, String)] = [
    (ClusterOptions(functions: 0), "functions"), (ClusterOptions(functions: -1), "functions"),
    (ClusterOptions(functions: 65), "functions"), (ClusterOptions(width: 0), "width"),
    (ClusterOptions(width: 65), "width"), (ClusterOptions(functions: 3, width: 22), "width"),
    (ClusterOptions(functions: 2, width: .max), "width"),
  ]
  for (options, argument) in cases {
    let error = #expect(throws: CrosspointError.self) { try options.validate(hidden: 64) }
    #expect(error?.code == .invalidArgument)
    #expect(error?.argument == argument)
    #expect(throws: CrosspointError.self) { try CrossPolytopeHash(options: options, hidden: 64, seed: 0) }
  }
  #expect(throws: CrosspointError.self) { try ClusterOptions().validate(hidden: 0) }
  #expect(throws: Never.self) { try ClusterOptions(functions: 3, width: 21).validate(hidden: 64) }
}

// MARK: - References

extension CrossPolytopeHash {
  fileprivate func ids(_ rows: [Float]) -> [UInt32] {
    let count = rows.count / rotation.hidden
    var ids = [UInt32](repeating: .max, count: count * functions)
    var scratch = [Float](repeating: .nan, count: rotation.hidden)
    self.ids(of: rows, count: count, into: &ids, scratch: &scratch)
    return ids
  }
}

private func largestCoordinate(_ row: UnsafePointer<Float>, _ width: Int) -> UInt32 {
  var id: UInt32 = 0
  kernels.cross_polytope(&id, row, nil, width, 1)
  return id
}

private func slowIDs(_ row: [Float], width: Int) -> [UInt32] {
  stride(from: 0, to: row.count, by: width).map { start in
    var best = 0
    for i in 1..<max(width, 1) where abs(row[start + i]) > abs(row[start + best]) { best = i }
    return UInt32(best + (row[start + best] < 0 ? width : 0))
  }
}
