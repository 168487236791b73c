import Foundation

@testable import CrosspointCompression

/// The error that each format of fixed size may make, in plain double precision and without a look at the codec: what
/// docs/wire-format.md states, for any rows.
struct FormatReference {
  let format: WireFormat
  let rows: HostileRows

  /// The least normal float: scales and steps do not go below.
  private static let floor = Double(Float.leastNormalMagnitude)
  /// A bfloat16 is this part off at most.
  private static let bf16 = 0x1p-8

  /// For each element, how far it may be off; `nil` where only the sum over all rows is bounded.
  var allowed: [Double]? {
    switch format.coding {
    case is FP32Format: rows.values.map { _ in 0 }
    case is BF16Format: rows.values.map { max(abs(Double($0)) * 0x1p-8, 0x1p-134) }
    case is FP16Format: rows.values.map { abs($0) < 65520 ? max(abs(Double($0)) * 0x1p-11, 0x1p-25) : .infinity }
    case is FP8Format: byRow { row in byBlock(row, of: 128, blockError) }
    case is UniformFormat: byRow(uniformError)
    case is ZipCacheFormat: separated()
    default: nil
    }
  }

  /// ‖error‖ / ‖rows‖, where that is what is bounded. The quantiser's error is that of Gaussian elements; a rotation of few
  /// of them, or of one that has all the energy, leaves others, whose error is up to 1.7 times as large.
  var allowedShare: Double? {
    let ofBits = [0.363, 0.1175, 0.0345, 0.0095, 0.0025, 0.00064, 0.00016, 0.00004]
    switch format.coding {
    case let rotated as RotatedFormat: return 1.7 * ofBits[rotated.bits - 1].squareRoot()
    case let mixed as MixedFormat: return 1.7 * ofBits[mixed.low.bits - 1].squareRoot()
    default: return nil
    }
  }

  /// Half a step of a row over its channels' scales √(max |x|), times the scale. What is far above typical of rows counts
  /// up to 64 times that, so that one huge row does not set the scales.
  private func separated() -> [Double] {
    let (hidden, values) = (rows.hidden, rows.values.map { Double($0) })
    let largest = stride(from: 0, to: values.count, by: hidden).map { start in
      values[start..<start + hidden].reduce(0) { max($0, abs($1)) }
    }.filter { $0 > 0 }
    let typical = exp2(largest.reduce(0) { $0 + log2($1) } / Double(max(1, largest.count)))
    let scales = (0..<hidden).map { channel in
      let most = stride(from: channel, to: values.count, by: hidden).reduce(0.0) { max($0, abs(values[$1])) }
      return min(most, 64 * typical).squareRoot()
    }
    return stride(from: 0, to: values.count, by: hidden).flatMap { start -> [Double] in
      let over = (0..<hidden).map { scales[$0] > 0 ? values[start + $0] / scales[$0] : 0 }
      let (low, high) = (over.min()!, over.max()!)
      // Scales, the smallest element and the step are bfloat16.
      let range = high - low + (abs(low) + abs(high)) * 3 * Self.bf16
      let step = max(range / Double((1 << format.bits) - 1), Self.floor) * (1 + 2 * Self.bf16)
      return (0..<hidden).map { scales[$0] * (1 + Self.bf16) * (step / 2 + max(abs(low), abs(high)) * 0x1p-21) }
    }
  }

  private func byRow(_ errors: (ArraySlice<Float>) -> [Double]) -> [Double] {
    stride(from: 0, to: rows.values.count, by: rows.hidden).flatMap { errors(rows.values[$0..<$0 + rows.hidden]) }
  }

  private func byBlock(_ row: ArraySlice<Float>, of size: Int, _ errors: (ArraySlice<Float>) -> [Double]) -> [Double] {
    stride(from: row.startIndex, to: row.endIndex, by: size).flatMap {
      errors(row[$0..<min($0 + size, row.endIndex)])
    }
  }

  /// Three bits of significand, or even steps near zero; a scale that was rounded down cuts off its part of the largest.
  private func blockError(_ block: ArraySlice<Float>) -> [Double] {
    let most = Double(block.reduce(0) { max($0, abs($1)) })
    let scale = max(most / 448, Self.floor) * (1 + Self.bf16)
    return block.map { max(abs(Double($0)) * (0x1p-4 + Self.bf16), scale * 0x1p-10) }
  }

  /// Half a step between the smallest, rounded down, and the largest, of a step that is rounded up.
  private func uniformError(_ row: ArraySlice<Float>) -> [Double] {
    let (low, high) = (Double(row.min()!), Double(row.max()!))
    let range = high - low + abs(low) * 2 * Self.bf16
    let step = max(range / Double((1 << format.bits) - 1), Self.floor) * (1 + 2 * Self.bf16)
    // The last digits of floats that are added and divided.
    return row.map { _ in step / 2 * (1 + 0x1p-10) + max(abs(low), abs(high)) * 0x1p-22 }
  }
}
