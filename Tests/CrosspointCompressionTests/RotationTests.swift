import CCrosspointKernels
import CrosspointCompression
import CrosspointCore
import CrosspointTestSupport
import Testing

private let sizes = [1, 2, 3, 7, 16, 32, 64, 96, 128, 384, 768, 1000, 1024]

@Test(arguments: sizes, [1, 2, 3])
func `rotation equals the dense product of its rounds`(hidden: Int, rounds: Int) throws {
  let rotation = try PseudoRotation(hidden: hidden, rounds: rounds, seed: 5)
  let row = randomFloats(hidden, seed: 11)
  #expect(relativeError(rotation.rotated(row), denseRotation(rotation, row)) < 1e-6)
}

@Test(arguments: [(2048, 1), (2048, 2), (2048, 3), (3000, 2), (8192, 1), (16384, 1)])
func `rotation of long rows equals the dense product`(hidden: Int, rounds: Int) throws {
  let rotation = try PseudoRotation(hidden: hidden, rounds: rounds, seed: 5)
  var row = [Float](repeating: 0, count: hidden)
  for (place, value) in [(0, 1), (hidden / 3, -2), (hidden - 1, 0.5)] as [(Int, Float)] { row[place] = value }
  #expect(relativeError(rotation.rotated(row), denseRotation(rotation, row)) < 1e-6)
}

@Test(arguments: sizes + [2048, 4096])
func `rotation keeps norms and inner products`(hidden: Int) throws {
  let rotation = try PseudoRotation(hidden: hidden, rounds: 3, seed: 6)
  let (x, y) = (randomFloats(hidden, seed: 1), randomFloats(hidden, seed: 2))
  let (rx, ry) = (rotation.rotated(x), rotation.rotated(y))
  let scale = (product(x, x) * product(y, y)).squareRoot()
  #expect(abs(product(rx, rx) / product(x, x) - 1) < 2e-6)
  #expect(abs(product(rx, ry) - product(x, y)) < 2e-6 * scale)
}

@Test(arguments: sizes + [2048, 4096, 16384], [1, 2, 3, 8])
func `rotating back is the inverse, in place too`(hidden: Int, rounds: Int) throws {
  let rotation = try PseudoRotation(hidden: hidden, rounds: rounds, seed: 7)
  let row = randomFloats(hidden, seed: 3)
  var buffer = row
  buffer.withUnsafeMutableBufferPointer { rotation.rotate($0.baseAddress!, into: $0.baseAddress!) }
  var apart = rotation.rotated(row)
  #expect(firstBitDifference(buffer, apart) == nil)
  rotation.rotateBack(apart, into: &buffer)
  #expect(relativeError(buffer, row) < 2e-6)
  apart.withUnsafeMutableBufferPointer { rotation.rotateBack($0.baseAddress!, into: $0.baseAddress!) }
  #expect(firstBitDifference(buffer, apart) == nil)
}

@Test(arguments: sizes + [200, 256, 512, 2048, 3000, 8192, 16384])
func `every kernel rotates to the same bits`(hidden: Int) throws {
  let rotation = try PseudoRotation(hidden: hidden, rounds: 3, seed: 8)
  var row = randomFloats(hidden, seed: 4)
  row[0] = .leastNonzeroMagnitude * 1000
  var results: [[Float]] = []
  forEachKernelVariant { kernels in
    var there = [Float](repeating: .nan, count: hidden)
    var back = there
    kernels.rotate(&there, row, rotation.signs, hidden, 3, row)
    kernels.rotate_back(&back, row, rotation.signs, hidden, 3)
    results.append(there + back)
  }
  for other in results.dropFirst() { #expect(firstBitDifference(results[0], other) == nil) }
}

@Test(arguments: [128, 384, 768, 1000, 1024])
func `unit vectors come out spread evenly, and looking Gaussian`(hidden: Int) throws {
  let seeds = 48
  var energy = [Double](repeating: 0, count: 8)
  var (second, fourth) = (0.0, 0.0)
  for seed in 0..<seeds {
    let rotation = try PseudoRotation(hidden: hidden, rounds: 3, seed: UInt64(seed))
    for place in [0, hidden / 2, hidden - 1] {
      var unit = [Float](repeating: 0, count: hidden)
      unit[place] = 1
      for (coordinate, value) in rotation.rotated(unit).enumerated() {
        let square = Double(value) * Double(value)
        energy[coordinate * 8 / hidden] += square
        second += square
        fourth += square * square
      }
    }
  }
  let samples = Double(3 * seeds)
  #expect(abs(fourth / second / second * samples * Double(hidden) - 3) < 0.15, "kurtosis of a Gaussian is 3")
  for segment in energy { #expect(abs(segment * 8 / samples - 1) < 0.1, "each eighth has an eighth of the energy") }
}

@Test func `the seed alone decides the rotation`() throws {
  let row = randomFloats(96, seed: 1)
  let a = try PseudoRotation(hidden: 96, rounds: 3, seed: 1).rotated(row)
  #expect(try firstBitDifference(a, PseudoRotation(hidden: 96, rounds: 3, seed: 1).rotated(row)) == nil)
  #expect(try firstBitDifference(a, PseudoRotation(hidden: 96, rounds: 3, seed: 2).rotated(row)) != nil)
}

@Test(arguments: [(0, 3), (-1, 3), (1 << 25, 3), (16, 0), (16, 9)])
func `shapes and rounds out of range are refused by name`(hidden: Int, rounds: Int) {
  let error = #expect(throws: CrosspointError.self) { try PseudoRotation(hidden: hidden, rounds: rounds, seed: 0) }
  #expect(error?.code == .invalidArgument)
  #expect(error?.argument == (hidden == 16 ? "rounds" : "hidden"))
}

// MARK: - References

/// Runs `body` with the kernel table of each variant that this processor has.
func forEachKernelVariant(_ body: (xp_kernels) -> Void) {
  for variant in [XP_SCALAR, XP_AVX2, XP_AVX512, XP_NEON] {
    if let table = xp_kernels_variant(variant) { body(table.pointee) }
  }
}

extension PseudoRotation {
  func rotated(_ rows: [Float]) -> [Float] {
    var result = [Float](repeating: .nan, count: rows.count)
    rows.withUnsafeBufferPointer { rows in
      result.withUnsafeMutableBufferPointer { result in
        for start in stride(from: 0, to: rows.count, by: hidden) {
          rotate(rows.baseAddress! + start, into: result.baseAddress! + start)
        }
      }
    }
    return result
  }
}

private func product(_ a: [Float], _ b: [Float]) -> Double {
  zip(a, b).reduce(0) { $0 + Double($1.0) * Double($1.1) }
}

/// The rounds as the documentation states them, entry by entry, in double precision.
private func denseRotation(_ rotation: PseudoRotation, _ row: [Float]) -> [Double] {
  let n = row.count
  var p = 1
  while 2 * p <= n { p *= 2 }
  func window(_ x: [Double], at start: Int, signs: ArraySlice<Float>) -> [Double] {
    let signed = zip(x[start..<start + p], signs).map { $0 * Double($1) }
    let nonzero = signed.indices.filter { signed[$0] != 0 }
    var result = x
    for i in 0..<p {
      result[start + i] = nonzero.reduce(0) {
        $0 + ((i & $1).nonzeroBitCount.isMultiple(of: 2) ? signed[$1] : -signed[$1])
      }
    }
    return result
  }
  var x = row.map(Double.init)
  var signs = rotation.signs[...]
  for _ in 0..<rotation.rounds {
    x = window(x, at: 0, signs: signs.prefix(p))
    signs = signs.dropFirst(p)
    guard n > p else { continue }
    x = window(x, at: n - p, signs: signs.prefix(p))
    signs = signs.dropFirst(p)
    for i in 0..<n / 2 {
      let j = i + n - n / 2
      (x[i], x[j]) = ((x[i] + x[j]) / 2.0.squareRoot(), (x[i] - x[j]) / 2.0.squareRoot())
    }
  }
  return x
}
