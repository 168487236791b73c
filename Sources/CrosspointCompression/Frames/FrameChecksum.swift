import CCrosspointKernels
import CrosspointCore
import CrosspointTokens

/// The checksum of a growing run of bytes, taken block by block while the bytes are still in the cache.
///
/// Any change inside one aligned 32-bit word changes the result for certain (see `codec_checksum.h`).
struct FrameChecksum {
  /// Bytes that gather before they are summed: half of a first-level cache.
  static let block = 16384
  /// Bytes of one step: what is summed before the end comes in multiples of it.
  static let step = 256

  private let lanes: UnsafeMutablePointer<UInt32>
  private let bytes: UnsafeRawPointer
  private let kernels: xp_kernels
  private var done = 0

  /// - Parameter lanes: 64 words of scratch.
  init(of bytes: UnsafeRawPointer, lanes: UnsafeMutablePointer<UInt32>, kernels: xp_kernels) {
    self.bytes = bytes
    self.lanes = lanes
    self.kernels = kernels
    lanes.update(repeating: 0, count: 64)
  }

  /// Throws `corruptFrame` unless the checksum of a body is the one that its header has.
  static func compare(_ stored: UInt64, _ computed: UInt64) throws(CrosspointError) {
    guard stored == computed else {
      throw .corrupt(
        "body checksum",
        "\(String(stored, radix: 16)); computed \(String(computed, radix: 16)): bytes changed in transit")
    }
  }

  /// Says that the first `count` bytes are there.
  @inline(__always)
  mutating func advance(to count: Int) {
    guard count - done >= Self.block else { return }
    let step = (count - done) & ~255
    kernels.checksum_absorb(lanes, bytes + done, step)
    done += step
  }

  /// The checksum of the first `count` bytes.
  consuming func finish(_ count: Int) -> UInt64 {
    let step = (count - done) & ~255
    kernels.checksum_absorb(lanes, bytes + done, step)
    done += step
    return kernels.checksum_finish(lanes, bytes + done, count - done, UInt64(count))
  }
}

/// The same checksum of bytes that lie in several places.
struct ScatteredChecksum {
  private let lanes: UnsafeMutablePointer<UInt32>
  /// The last bytes so far, short of a step.
  private let carry: UnsafeMutableRawPointer
  private var carried = 0
  private var total = 0
  private let kernels: xp_kernels

  /// - Parameters:
  ///   - lanes: 64 words of scratch.
  ///   - carry: ``FrameChecksum/step`` bytes of scratch.
  init(lanes: UnsafeMutablePointer<UInt32>, carry: UnsafeMutableRawPointer, kernels: xp_kernels) {
    self.lanes = lanes
    self.carry = carry
    self.kernels = kernels
    lanes.update(repeating: 0, count: 64)
  }

  mutating func absorb(_ piece: UnsafeRawPointer, _ count: Int) {
    total += count
    var start = 0
    if carried > 0 {
      start = min(count, FrameChecksum.step - carried)
      (carry + carried).copyMemory(from: piece, byteCount: start)
      carried += start
      guard carried == FrameChecksum.step else { return }
      kernels.checksum_absorb(lanes, carry, FrameChecksum.step)
    }
    let steps = (count - start) & ~(FrameChecksum.step - 1)
    kernels.checksum_absorb(lanes, piece + start, steps)
    carried = count - start - steps
    carry.copyMemory(from: piece + start + steps, byteCount: carried)
  }

  consuming func finish() -> UInt64 { kernels.checksum_finish(lanes, carry, carried, UInt64(total)) }
}
