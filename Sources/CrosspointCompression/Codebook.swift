/// The Lloyd-Max quantiser of the unit Gaussian with 2^bits levels, in the form the kernels read.
///
/// A code is sign and magnitude: its top bit is the sign, the rest counts the thresholds at or below |x|.
/// Source: S. Lloyd, "Least squares quantization in PCM", and J. Max, "Quantizing for minimum distortion" (1960).
struct Codebook: Sendable {
  let bits: Int
  /// `[2^bits, at least 16]`: what each code stands for; zeros behind.
  let levels: [Float]
  var outermostLevel: Float { levels[(1 << (bits - 1)) - 1] }
  /// `[2^(bits − 1) − 1]`: ascending, half-way between positive levels, cut to 16 bits of mantissa.
  let thresholds: [Float]
  /// `[512]`: the magnitudes in steps of 1/64. A cell holds the bits of the one threshold that lies inside it (infinity if
  /// none does) and, in the seven bits that thresholds leave free, the number of thresholds below the cell.
  let cells: [UInt32]

  /// The books of 1 to 8 bits.
  static let ofBits: [Codebook] = positiveLevels.indices.map { Codebook(bits: $0 + 1, positive: positiveLevels[$0]) }

  private init(bits: Int, positive: [Float]) {
    self.bits = bits
    levels = positive + positive.map { -$0 } + [Float](repeating: 0, count: max(0, 16 - 2 * positive.count))
    thresholds = zip(positive, positive.dropFirst()).map { low, high in
      Float(bitPattern: ((low + high) / 2).bitPattern & ~0x7F)
    }
    var cells = [UInt32](repeating: Float.infinity.bitPattern, count: 512)
    for (index, threshold) in thresholds.enumerated() {
      let cell = Int(threshold * 64)
      precondition(cells[cell] == Float.infinity.bitPattern, "two thresholds in one cell")
      cells[cell] = threshold.bitPattern
      assert(index < 127)
    }
    var below: UInt32 = 0
    for cell in cells.indices {
      let inside = cells[cell] != Float.infinity.bitPattern
      cells[cell] |= below
      if inside { below += 1 }
    }
    self.cells = cells
  }
}
