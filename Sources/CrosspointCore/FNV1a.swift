/// Fowler, Noll and Vo's hash with 64 bits: checksums of short records, keys of random streams, names of texts.
///
/// A change of one byte always changes it.
@inlinable
package func fnv1a(_ bytes: some Sequence<UInt8>, seed: UInt64 = 0) -> UInt64 {
  var hash = 0xCBF2_9CE4_8422_2325 ^ seed
  for byte in bytes { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01B3 }
  return hash
}
