import CCrosspointKernels
import CrosspointTestSupport
import Testing

/// Row kernels against plain Swift, in every variant that this processor runs: all tails, and aligned to floats only.
struct KernelTests {
  static let lengths = Array(0...67) + [128, 255, 1000, 4099]

  /// Every variant of this processor; the scalar one is always there.
  static var variants: [xp_kernels] {
    [XP_SCALAR, XP_AVX2, XP_AVX512, XP_NEON].compactMap { xp_kernels_variant($0)?.pointee }
  }

  /// Rows x, y, c and an accumulator, none of them aligned to more than a float.
  struct Rows {
    let n: Int
    let storage: [Float]
    var x: [Float] { Array(storage[1..<1 + n]) }
    var y: [Float] { Array(storage[2 + n..<2 + 2 * n]) }
    var c: [Float] { Array(storage[3 + 2 * n..<3 + 3 * n]) }

    init(_ n: Int) {
      self.n = n
      storage = randomFloats(3 + 3 * n, seed: UInt64(n))
    }

    /// Calls `body` with the addresses of x, y and c.
    func callAsFunction<R>(
      _ body: (_ x: UnsafePointer<Float>, _ y: UnsafePointer<Float>, _ c: UnsafePointer<Float>) -> R
    ) -> R {
      storage.withUnsafeBufferPointer {
        body($0.baseAddress! + 1, $0.baseAddress! + 2 + n, $0.baseAddress! + 3 + 2 * n)
      }
    }
  }

  /// What `kernel` leaves in a copy of `row`, checking that it writes nothing before and after it.
  private func changed(_ row: [Float], by kernel: (UnsafeMutablePointer<Float>) -> Void) -> [Float] {
    var guarded = [.infinity] + row + [.infinity]
    guarded.withUnsafeMutableBufferPointer { kernel($0.baseAddress! + 1) }
    #expect(guarded.first == .infinity && guarded.last == .infinity)
    return Array(guarded.dropFirst().dropLast())
  }

  /// The sum of terms in the kernels' order: four vectors of 16 lanes take turns, the first has what is left over, with zeros
  /// beyond the tail; then a tree.
  private func laneSum(_ terms: [Float]) -> Float {
    var vectors = [[Float]](repeating: [Float](repeating: 0, count: 16), count: 4)
    for start in stride(from: 0, to: terms.count, by: 16) {
      let vector = start < terms.count & ~63 ? start / 16 % 4 : 0
      for lane in 0..<16 { vectors[vector][lane] += start + lane < terms.count ? terms[start + lane] : 0 }
    }
    var lanes = (0..<16).map { (vectors[0][$0] + vectors[1][$0]) + (vectors[2][$0] + vectors[3][$0]) }
    for step in [8, 4, 2, 1] {
      for lane in 0..<step { lanes[lane] += lanes[lane + step] }
    }
    return lanes[0]
  }

  @Test(arguments: lengths)
  func everyVariantOfTheUpdatesGivesTheBitsOfPlainSwift(n: Int) {
    let rows = Rows(n)
    let (x, y, c, a) = (rows.x, rows.y, rows.c, Float(0.3))
    for table in Self.variants {
      let scaled = rows { x, _, _ in changed(y) { table.scale($0, a, x, n) } }
      #expect(firstBitDifference(scaled, x.map { a * $0 }) == nil)
      let scaledInPlace = changed(x) { table.scale($0, a, $0, n) }
      #expect(firstBitDifference(scaledInPlace, scaled) == nil)
      let added = rows { x, _, _ in changed(y) { table.axpy($0, a, x, n) } }
      #expect(firstBitDifference(added, (0..<n).map { y[$0] + a * x[$0] }) == nil)
      let moved = rows { x, _, c in changed(y) { table.axpy_difference($0, a, x, c, n) } }
      #expect(firstBitDifference(moved, (0..<n).map { y[$0] + a * (x[$0] - c[$0]) }) == nil)
      let squares = rows { x, _, _ in changed(y) { table.axpy_squares($0, a, x, n) } }
      #expect(firstBitDifference(squares, (0..<n).map { y[$0] + (a * x[$0]) * (a * x[$0]) }) == nil)
    }
  }

  @Test(arguments: lengths)
  func everyVariantOfTheSumsGivesTheBitsOfPlainSwift(n: Int) {
    let rows = Rows(n)
    let (x, y, c) = (rows.x, rows.y, rows.c)
    let dot = laneSum((0..<n).map { x[$0] * y[$0] })
    let dotDifference = laneSum((0..<n).map { y[$0] * (x[$0] - c[$0]) })
    let weighted = laneSum((0..<n).map { (x[$0] * y[$0]) * (x[$0] * y[$0]) })
    let distance = laneSum((0..<n).map { (x[$0] - c[$0]) * (x[$0] - c[$0]) })
    for table in Self.variants {
      #expect(rows { x, y, _ in table.dot(x, y, n) }.bitPattern == dot.bitPattern)
      #expect(rows { x, y, c in table.dot_difference(y, x, c, n) }.bitPattern == dotDifference.bitPattern)
      #expect(rows { x, y, _ in table.weighted_squares(x, y, n) }.bitPattern == weighted.bitPattern)
      #expect(rows { x, _, c in table.squared_distance(x, c, n) }.bitPattern == distance.bitPattern)
    }
  }

  @Test(arguments: lengths)
  func centringGivesTheRowAndItsEnergy(n: Int) {
    let rows = Rows(n)
    let (x, c) = (rows.x, rows.c)
    let centred = (0..<n).map { x[$0] - c[$0] }
    for table in Self.variants {
      var (out, plain) = ([Float](repeating: 7, count: n + 1), [Float](repeating: 7, count: n + 1))
      let energy = rows { x, _, c in table.centre(&out, x, c, n) }
      let all = rows { x, _, _ in table.centre(&plain, x, nil, n) }
      #expect(firstBitDifference(out, centred + [7]) == nil)
      #expect(firstBitDifference(plain, x.prefix(n) + [7]) == nil)
      #expect(energy.bitPattern == laneSum(centred.map { $0 * $0 }).bitPattern)
      #expect(all.bitPattern == laneSum((0..<n).map { x[$0] * x[$0] }).bitPattern)
    }
  }

  @Test(arguments: lengths)
  func accumulatingAddsTheRowAndGivesItsEnergy(n: Int) {
    let rows = Rows(n)
    let (x, y) = (rows.x, rows.y)
    for table in Self.variants {
      var sum = Array(y.prefix(n)) + [7]
      let energy = rows { x, _, _ in table.accumulate(&sum, x, n) }
      #expect(firstBitDifference(sum, (0..<n).map { y[$0] + x[$0] } + [7]) == nil)
      #expect(energy.bitPattern == laneSum((0..<n).map { x[$0] * x[$0] }).bitPattern)
    }
  }

  @Test(arguments: [0, 1, 15, 16, 17, 63, 64, 65, 67, 200])
  func theFirstNonFiniteValueIsFoundWhereverItIs(n: Int) {
    for table in Self.variants {
      var row = [.nan] + randomFloats(n, seed: 5) + [.nan]
      #expect(table.first_nonfinite(Array(row[1...]), n) == n)
      for index in 0..<n {
        for bad in [Float.nan, .infinity, -.infinity, .signalingNaN] {
          row[1 + index] = bad
          let found = row.withUnsafeBufferPointer { table.first_nonfinite($0.baseAddress! + 1, n) }
          #expect(found == index)
        }
        row[1 + index] = index.isMultiple(of: 2) ? .greatestFiniteMagnitude : .leastNonzeroMagnitude
      }
    }
  }

  @Test(arguments: [0, 1, 15, 16, 17, 63, 64, 65, 67, 200])
  func soIsThatOfBFloat16(n: Int) {
    for table in Self.variants {
      var row = [0x7F80] + (0..<UInt16(n)).map { 77 &* $0 & 0xBF7F } + [0x7F80] as [UInt16]
      #expect(row.withUnsafeBufferPointer { table.bf16_first_nonfinite($0.baseAddress! + 1, n) } == n)
      for index in 0..<n {
        for bad in [0x7F80, 0xFF80, 0x7F81, 0xFFC0] as [UInt16] {
          row[1 + index] = bad
          #expect(row.withUnsafeBufferPointer { table.bf16_first_nonfinite($0.baseAddress! + 1, n) } == index)
        }
        row[1 + index] = index.isMultiple(of: 2) ? 0x7F7F : 0x807F
      }
    }
  }

  @Test func theBestVariantIsOneThatThisProcessorRuns() {
    let names = Self.variants.map { String(cString: $0.name) }
    #expect(names.contains("scalar"))
    #expect(names.contains(String(cString: xp_kernels_best().pointee.name)))
  }

  @Test(arguments: lengths)
  func theSumOfTheLargestIsThatOfTheSorted(n: Int) {
    // Some twice, some zero, some denormal.
    let x = randomFloats(n, seed: UInt64(n)).map { abs($0) < 0.1 ? 0 : abs($0) < 0.2 ? 0.25 : $0 * $0 }
    let shrunk = x.map { $0 * 1e-42 }
    for row in [x, shrunk] {
      let sorted = row.sorted(by: >)
      for k in Set([1, 2, n / 4, n / 2, n - 1, n, n + 3]) where k > 0 {
        let sums = Self.variants.map { kernels in
          row.withUnsafeBufferPointer { kernels.sum_of_largest($0.baseAddress!, n, k) }
        }
        let expected = sorted.prefix(k).reduce(0) { $0 + Double($1) }
        #expect(abs(Double(sums[0]) - expected) <= 1e-6 * expected, "\(k) of \(n)")
        #expect(sums.allSatisfy { $0 == sums[0] }, "\(k) of \(n)")
      }
    }
  }
}
