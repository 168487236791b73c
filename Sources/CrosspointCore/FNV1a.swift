/// Fowler, Noll and Vo's hash with 64 bits: checksums of short records, keys of random streams, names of texts.
///
/// A change of one byte always changes it.
@inlinable
package func fnv1a(_ bytes: some Sequence<UInt8>, seed: UInt64 = 0) -> UInt64 {
  var hash = 0xCBF2_9CE4_8422_2325 ^ seed
  for byte in bytes { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01B3 }
  return hash
}

/// The same over words of 64 bits in four lanes, for long runs of bytes. A change inside one aligned word always changes it.
package func checksum(_ bytes: UnsafeRawBufferPointer) -> UInt64 {
  let words = bytes.count / 8
  var lanes = SIMD4<UInt64>(repeating: 0xCBF2_9CE4_8422_2325)
  for word in stride(from: 0, to: words & ~3, by: 4) {
    let next = bytes.loadUnaligned(fromByteOffset: 8 * word, as: SIMD4<UInt64>.self)
    lanes = (lanes ^ next) &* 0x100_0000_01B3
  }
  var hash = fnv1a(bytes[(8 * (words & ~3))...], seed: UInt64(bytes.count))
  for lane in 0..<4 { hash = (hash ^ lanes[lane]) &* 0x100_0000_01B3 }
  return hash
}
