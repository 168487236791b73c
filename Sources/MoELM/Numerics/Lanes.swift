/// Sixteen floats at a time: plain Swift that the compiler turns into vector instructions of the baseline.
typealias Lanes = SIMD16<Float>

@inline(__always)
func load(_ x: UnsafePointer<Float>) -> Lanes { UnsafeRawPointer(x).loadUnaligned(as: Lanes.self) }

@inline(__always)
func store(_ x: Lanes, _ out: UnsafeMutablePointer<Float>) {
  UnsafeMutableRawPointer(out).storeBytes(of: x, as: Lanes.self)
}

/// The last `count` < 16 floats, `filler` beyond.
func loadTail(_ x: UnsafePointer<Float>, _ count: Int, filler: Float = 0) -> Lanes {
  var lanes = Lanes(repeating: filler)
  for i in 0..<count { lanes[i] = x[i] }
  return lanes
}

func storeTail(_ x: Lanes, _ out: UnsafeMutablePointer<Float>, _ count: Int) {
  for i in 0..<count { out[i] = x[i] }
}

/// `out[i] = f(x[i])`; out may be x.
@inline(__always)
func map(_ x: UnsafePointer<Float>, into out: UnsafeMutablePointer<Float>, count: Int, _ f: (Lanes) -> Lanes) {
  var i = 0
  while i + 16 <= count {
    store(f(load(x + i)), out + i)
    i += 16
  }
  if i < count { storeTail(f(loadTail(x + i, count - i)), out + i, count - i) }
}

/// `out[i] = f(x[i], y[i])`; out may be x or y.
@inline(__always)
func map(
  _ x: UnsafePointer<Float>, _ y: UnsafePointer<Float>, into out: UnsafeMutablePointer<Float>, count: Int,
  _ f: (Lanes, Lanes) -> Lanes
) {
  var i = 0
  while i + 16 <= count {
    store(f(load(x + i), load(y + i)), out + i)
    i += 16
  }
  if i < count {
    let rest = count - i
    storeTail(f(loadTail(x + i, rest), loadTail(y + i, rest)), out + i, rest)
  }
}

/// `out[i] = f(out[i], x[i], y[i])`.
@inline(__always)
func update(
  _ out: UnsafeMutablePointer<Float>, _ x: UnsafePointer<Float>, _ y: UnsafePointer<Float>, count: Int,
  _ f: (Lanes, Lanes, Lanes) -> Lanes
) {
  var i = 0
  while i + 16 <= count {
    store(f(load(out + i), load(x + i), load(y + i)), out + i)
    i += 16
  }
  if i < count {
    let rest = count - i
    storeTail(f(loadTail(out + i, rest), loadTail(x + i, rest), loadTail(y + i, rest)), out + i, rest)
  }
}

/// `Σ f(x[i], y[i])`; f must give 0 for zeros.
@inline(__always)
func sum(_ x: UnsafePointer<Float>, _ y: UnsafePointer<Float>, count: Int, _ f: (Lanes, Lanes) -> Lanes) -> Float {
  var total = Lanes()
  var i = 0
  while i + 16 <= count {
    total += f(load(x + i), load(y + i))
    i += 16
  }
  if i < count { total += f(loadTail(x + i, count - i), loadTail(y + i, count - i)) }
  return total.sum()
}

/// The largest of at least one float.
func maximum(_ x: UnsafePointer<Float>, count: Int) -> Float {
  var largest = Lanes(repeating: -.infinity)
  var i = 0
  while i + 16 <= count {
    let lanes = load(x + i)
    largest.replace(with: lanes, where: lanes .> largest)
    i += 16
  }
  if i < count {
    let lanes = loadTail(x + i, count - i, filler: -.infinity)
    largest.replace(with: lanes, where: lanes .> largest)
  }
  return largest.max()
}

/// `e^x` to about two units in the last place, for x between −87 and 88; clamped beyond.
///
/// `x = n ln 2 + r`, |r| ≤ ½ ln 2, and a polynomial for `e^r` (coefficients of Moshier's Cephes library, expf).
@inline(__always)
func exponential(_ x: Lanes) -> Lanes {
  let floor = x.replacing(with: -87, where: x .< -87)
  let x = floor.replacing(with: 88, where: floor .> 88)
  let shift = Lanes(repeating: 12_582_912)  // 1.5 · 2²³: adding it rounds to a whole number
  let shifted = x * 1.442_695_04 + shift
  let n = shifted - shift
  let r = (x - n * 0.693_359_375) + n * 2.121_944_4e-4
  var p = r * 1.987_569_15e-4 + 1.398_199_950_7e-3
  p = p * r + 8.333_451_907_3e-3
  p = p * r + 4.166_579_589_4e-2
  p = p * r + 1.666_666_545_9e-1
  p = p * r + 5.000_000_120_1e-1
  let power = p * (r * r) + r + 1
  let exponent = unsafeBitCast(shifted, to: SIMD16<Int32>.self) &<< 23
  return unsafeBitCast(unsafeBitCast(power, to: SIMD16<Int32>.self) &+ exponent, to: Lanes.self)
}
