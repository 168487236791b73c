/// The seeded generator behind every random choice of Crosspoint: signs of the rotation, sampling, tests.
///
/// The same seed gives the same sequence on every rank and machine. Source: Steele, Lea and Flood, "Fast splittable
/// pseudorandom number generators", OOPSLA 2014 (the finaliser is Stafford's variant 13).
public struct SplitMix64: RandomNumberGenerator, Sendable {
  package private(set) var state: UInt64

  public init(seed: UInt64) { state = seed }

  public mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var z = state
    z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
    z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
    return z ^ (z >> 31)
  }

  /// A float in [0, 1) with 24 random bits.
  public mutating func nextUnit() -> Float { Float(next() >> 40) * 0x1p-24 }
}
