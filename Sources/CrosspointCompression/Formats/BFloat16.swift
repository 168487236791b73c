/// One bfloat16: the upper half of a float.
struct BFloat16 {
  let bits: UInt16

  static let nan = BFloat16(bits: 0x7FC0)
  private static let largest: UInt16 = 0x7F7F

  init(bits: UInt16) { self.bits = bits }

  /// Round to nearest, ties to even; NaN stays NaN.
  init(nearest value: Float) {
    let pattern = value.bitPattern
    bits =
      value.isNaN
      ? UInt16(pattern >> 16) | 0x40 : UInt16(truncatingIfNeeded: (pattern &+ 0x7FFF &+ (pattern >> 16 & 1)) >> 16)
  }

  /// The largest bfloat16 that is not above a finite value (the lowest there is, if all are).
  init(down value: Float) { bits = Self.toward(value, awayFromZero: value < 0) }

  /// The smallest bfloat16 that is not below a finite value (the highest there is, if all are).
  init(up value: Float) { bits = Self.toward(value, awayFromZero: value > 0) }

  var value: Float { Float(bitPattern: UInt32(bits) << 16) }

  private static func toward(_ value: Float, awayFromZero: Bool) -> UInt16 {
    let pattern = value.bitPattern
    let sign = UInt16(pattern >> 16) & 0x8000
    let magnitude = UInt16(pattern >> 16) & 0x7FFF
    let inexact = pattern & 0xFFFF != 0
    return sign | min(magnitude + (awayFromZero && inexact ? 1 : 0), largest)
  }
}
