import Crosspoint
import CrosspointTestSupport
import Foundation
import Testing

@testable import MoELM

@Suite struct NumericsTests {
  @Test func exponentialIsExactToTwoUnitsInTheLastPlace() {
    var worst = 0.0
    for i in stride(from: -86.9, through: 87.9, by: 0.0137) {
      let x = Float(i)
      let exact = exp(Double(x))
      worst = max(worst, abs(Double(exponential(Lanes(repeating: x))[3]) - exact) / exact)
    }
    #expect(worst < 2.4e-7)
    #expect(exponential(Lanes(repeating: 0))[0] == 1)
    #expect(exponential(Lanes(repeating: -.infinity))[0] < 1e-37)
  }

  @Test(arguments: [1, 7, 15, 16, 17, 33, 48]) func loopsCoverEveryTail(count: Int) throws {
    let (x, y) = (randomFloats(count, seed: 1), randomFloats(count, seed: 2))
    let out = try FloatBuffer(count)
    let products: [Float] = x.indices.map { x[$0] * y[$0] }
    let total: Double = products.reduce(0.0) { $0 + Double($1) }
    map(x, y, into: out.base, count: count) { $0 * $1 }
    #expect(Array(out.storage) == products)
    update(out.base, x, y, count: count) { $0 + $1 - $2 }
    let updated: [Float] = x.indices.map { products[$0] + x[$0] - y[$0] }
    #expect(Array(out.storage) == updated)
    #expect(abs(Double(sum(x, y, count: count) { $0 * $1 }) - total) < 1e-5)
    #expect(maximum(x, count: count) == x.max())
  }

  @Test func memoryThatThereIsNotIsAnError() throws {
    let buffer = try FloatBuffer(4)
    buffer.base[3] = 7
    for (rows, columns) in [(1 << 40, 1 << 10), (Int.max, 2), (1 << 45, 1)] {
      let error = #expect(throws: CrosspointError.self) { _ = try buffer.matrix(rows, columns) }
      #expect(error?.code == .outOfMemory)
    }
    #expect(try buffer.matrix(2, 2).base[3] == 7)
    let error = #expect(throws: CrosspointError.self) { _ = try FloatBuffer(1 << 45) }
    #expect(error?.code == .outOfMemory)
  }

  @Test func rowsThatVaryWithinTheirBoundTakeMemoryOnce() throws {
    let buffer = FloatBuffer()
    let first = try buffer.matrix(100, 8, mostRows: 800)
    first.base[7] = 3
    for rows in [101, 160, 5, 800] {
      let matrix = try buffer.matrix(rows, 8, mostRows: 800)
      #expect(matrix.base == first.base && matrix.base[7] == 3, "\(rows) rows")
      matrix.row(rows - 1)[7] = 3
    }
    // Of a bound that is far away, eight times as much as is needed.
    _ = try buffer.matrix(1000, 8, mostRows: 1 << 50)
    #expect(buffer.storage.count == 64_000)
  }

  @Test func productsAgreeWithTripleLoops() throws {
    let (m, n, k) = (5, 3, 7)
    let (a, b, c) = try (FloatBuffer(m * k), FloatBuffer(k * n), FloatBuffer(m * n))
    _ = a.storage.update(fromContentsOf: randomFloats(m * k, seed: 3))
    _ = b.storage.update(fromContentsOf: randomFloats(k * n, seed: 4))
    var expected = [Double](repeating: 0, count: m * n)
    for i in 0..<m {
      for j in 0..<n {
        for l in 0..<k { expected[i * n + j] += Double(a.base[i * k + l]) * Double(b.base[l * n + j]) }
      }
    }
    try multiply(a.matrix(m, k), b.matrix(k, n), into: c.matrix(m, n))
    #expect(relativeError(Array(c.storage), expected.map { Float($0) }) < 1e-6)
    // The same product from the transposes, added to what is there.
    let (at, bt) = try (FloatBuffer(m * k), FloatBuffer(k * n))
    for l in 0..<k {
      for i in 0..<m { at.base[l * m + i] = a.base[i * k + l] }
      for j in 0..<n { bt.base[j * k + l] = b.base[l * n + j] }
    }
    try multiply(
      at.matrix(k, m).transposed, bt.matrix(n, k).transposed, into: c.matrix(m, n), scale: 2, accumulate: true)
    #expect(relativeError(Array(c.storage), expected.map { Float(3 * $0) }) < 1e-6)
  }

  @Test func adamWFollowsItsDefinition() throws {
    let set = try ParameterSet(
      [
        ParameterSpecification(name: "w", rows: 3, columns: 7, start: .normal(1)),
        ParameterSpecification(name: "g", rows: 1, columns: 5, start: .ones),
      ], seed: 5)
    var w = (0..<set.count).map { Double(set.values[$0]) }
    var (m, v) = ([Double](repeating: 0, count: set.count), [Double](repeating: 0, count: set.count))
    let optimiser = AdamW(weightDecay: 0.1)
    for step in 0..<4 {
      let gradients = randomFloats(set.count, seed: UInt64(step + 10))
      _ = set.gradients.update(fromContentsOf: gradients)
      optimiser.update(set, learningRate: 0.01, gradientScale: 0.5, step: step)
      for i in w.indices {
        let g = 0.5 * Double(gradients[i])
        m[i] = 0.9 * m[i] + 0.1 * g
        v[i] = 0.95 * v[i] + 0.05 * g * g
        let (mHat, vHat) = (m[i] / (1 - pow(0.9, Double(step + 1))), v[i] / (1 - pow(0.95, Double(step + 1))))
        w[i] -= 0.01 * (mHat / (vHat.squareRoot() + 1e-8) + (i < 21 ? 0.1 * w[i] : 0))
      }
    }
    #expect(relativeError((0..<set.count).map { Double(set.values[$0]) }, w) < 1e-6)
  }

  @Test func learningRateWarmsUpAndFallsToZero() {
    var options = TrainingOptions()
    (options.steps, options.warmup, options.learningRate) = (110, 10, 1)
    #expect(options.learning.rate(step: 0) == 0.1)
    #expect(options.learning.rate(step: 10) == 1)
    #expect(abs(options.learning.rate(step: 60) - 0.5) < 1e-6)
    #expect(options.learning.rate(step: 109) < 1e-3)
    #expect(options.learning.rate(step: 110) == 0)
  }

  @Test func aTensorBeginsAlikeOnWhicheverRankHoldsIt() throws {
    let shape = tinyOptions().shape
    let whole = try ParameterSet(LanguageModel.expertSpecifications(shape, rank: 0, of: 1), seed: 9)
    let part = try ParameterSet(LanguageModel.expertSpecifications(shape, rank: 1, of: 2), seed: 9)
    for specification in part.specifications {
      let (a, b) = (part[specification.name].value, whole[specification.name].value)
      #expect(Array(a.floats) == Array(b.floats))
    }
    #expect(part.specifications.count == 2)
  }
}
