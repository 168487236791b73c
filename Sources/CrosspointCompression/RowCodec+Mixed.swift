import CCrosspointKernels
import CrosspointCore
import CrosspointTokens

/// Rotated rows of two precisions: those of most importance in a group get the higher one, see ``Mixture``.
///
/// Sources: a higher precision for the tokens that matter and a lower one for the rest is that of ZipCache (arXiv 2405.14256)
/// and EdgeQAT (arXiv 2402.10787); there they matter by attention, here by their router's weight.
extension RowCodec {
  /// Writes the bitmap of a group: one bit per row, set for its most important rows.
  ///
  /// First come those of largest importance by what their source says, if it says any; among equals those of which most
  /// energy is left without the group's mean: that makes the squared error of the group the least. Then the earlier ones.
  /// NaN counts as zero.
  func markImportantRows(
    of group: RowSource, mean: UnsafePointer<Float>?, mixture: Mixture, into bitmap: UnsafeMutableRawPointer
  ) throws(CrosspointError) {
    let buffer = try pool.lease(bytes: group.rows * MemoryLayout<UInt64>.stride)
    defer { pool.release(buffer) }
    let keys = UnsafeMutableBufferPointer(
      start: buffer.base.assumingMemoryBound(to: UInt64.self), count: group.rows)
    // Floats without their sign are in the order of their bits.
    func order(_ value: Float) -> UInt64 { value.isNaN ? 0 : UInt64(value.magnitude.bitPattern) }
    for index in keys.indices {
      let energy = kernels.centre(scratchRow(1), group.row(index, hidden: hidden), mean, hidden)
      keys[index] = order(group.importances?[index] ?? 0) << 32 | order(energy)
    }

    // The largest threshold that enough rows reach, bit by bit; those that just reach it share what is left.
    let wanted = mixture.highRows(of: group.rows)
    var threshold: UInt64 = 0
    for bit in (UInt64(0)..<64).reversed() {
      let trial = threshold | 1 << bit
      if keys.count(where: { $0 >= trial }) >= wanted { threshold = trial }
    }
    var equals = wanted - keys.count { $0 > threshold }

    let bytes = UnsafeMutableRawBufferPointer(start: bitmap, count: Mixture.bitmapBytes(rows: group.rows))
    bytes.initializeMemory(as: UInt8.self, repeating: 0)
    for (index, key) in keys.enumerated() where key >= threshold {
      if key == threshold {
        guard equals > 0 else { continue }
        equals -= 1
      }
      bytes[index / 8] |= 1 << UInt8(index % 8)
    }
  }
}
