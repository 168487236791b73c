/// The Lloyd-Max quantiser of the unit Gaussian with 2^bits levels, in the form the kernels read.
///
/// A code is sign and magnitude: its top bit is the sign, the rest numbers the positive levels upwards. An encoder finds it
/// by arithmetic alone: the whole part of a polynomial of |x| that rises by one from each threshold to the next. Thresholds
/// found so lie within 1/64 of a cell from half-way between two levels, which adds less than 0.2 % to the squared error.
/// Source: S. Lloyd, "Least squares quantization in PCM", and J. Max, "Quantizing for minimum distortion" (1960);
/// companding: W. Bennett, "Spectra of quantized signals" (1948).
struct Codebook: Sendable {
  let bits: Int
  /// `[2^bits, at least 16]`: what each code stands for; zeros behind.
  let levels: [Float]
  /// The largest magnitude that the polynomial is asked for, then its coefficients of |x|, |x|², …
  let compander: [Float]

  /// The books of 1 to 8 bits.
  static let ofBits: [Codebook] = positiveLevels.indices.map {
    Codebook(bits: $0 + 1, positive: positiveLevels[$0], compander: companders[$0])
  }

  private init(bits: Int, positive: [Float], compander: [Float]) {
    self.bits = bits
    levels = positive + positive.map { -$0 } + [Float](repeating: 0, count: max(0, 16 - 2 * positive.count))
    self.compander = compander
  }
}
