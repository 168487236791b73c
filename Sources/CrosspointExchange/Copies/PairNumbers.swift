import CrosspointCompression
import CrosspointTokens

/// Numbers of pairs as bytes, about as precise as the rows that they travel with.
enum PairNumbers {
  /// With lossless rows.
  case fp32
  /// With rows of more than eight bits per element; and short blocks of ``int8``, which are no larger so.
  case bf16
  /// 256 even steps: of up to 256 numbers the smallest and the step, both fp32, then a byte each, in eights. If one of them
  /// is not finite, all come back as NaN.
  case int8

  init(with rows: WireFormat) { self = rows.isLossless ? .fp32 : rows.rate > 8 ? .bf16 : .int8 }

  func bytes(_ count: Int) -> Int {
    switch coding(count) {
    case .fp32: 4 * count
    case .bf16: 2 * count
    case .int8: Self.steppedBytes(count)
    }
  }

  func write(_ numbers: UnsafeBufferPointer<Float>, to block: UnsafeMutableRawBufferPointer) {
    guard let target = block.baseAddress, let source = numbers.baseAddress else { return }
    switch coding(numbers.count) {
    case .fp32: target.copyMemory(from: source, byteCount: 4 * numbers.count)
    case .bf16: kernels.bf16_encode(target, source, numbers.count, 1)
    case .int8:
      Self.forEachRun(numbers.count) { place, start, count in
        var (low, high): (Float, Float) = (.nan, .nan)
        if kernels.largest_magnitude(source + start, count).isFinite {
          kernels.smallest_and_largest(source + start, count, &low, &high)
        }
        let step = high / 255 - low / 255
        (target + place).storeBytes(of: low, as: Float.self)
        (target + place + 4).storeBytes(of: step, as: Float.self)
        kernels.uniform_encode(target + place + 8, source + start, count, 8, low, step)
      }
    }
  }

  func read(_ numbers: UnsafeMutableBufferPointer<Float>, from block: UnsafeRawBufferPointer) {
    guard let source = block.baseAddress, let target = numbers.baseAddress else { return }
    switch coding(numbers.count) {
    case .fp32: UnsafeMutableRawPointer(target).copyMemory(from: source, byteCount: 4 * numbers.count)
    case .bf16: kernels.bf16_decode(target, source, numbers.count, 1)
    case .int8:
      Self.forEachRun(numbers.count) { place, start, count in
        let low = source.loadUnaligned(fromByteOffset: place, as: Float.self)
        let step = source.loadUnaligned(fromByteOffset: place + 4, as: Float.self)
        kernels.uniform_decode(target + start, source + place + 8, count, 8, low, step)
      }
    }
  }

  /// What a block of so many numbers is written as.
  private func coding(_ count: Int) -> PairNumbers {
    if case .int8 = self, Self.steppedBytes(count) >= 2 * count { .bf16 } else { self }
  }

  private static let run = 256

  private static func steppedBytes(_ count: Int) -> Int { (count + run - 1) / run * 8 + (count + 7) / 8 * 8 }

  private static func forEachRun(_ count: Int, _ body: (_ place: Int, _ start: Int, _ count: Int) -> Void) {
    for start in stride(from: 0, to: count, by: run) { body(start + start / run * 8, start, min(run, count - start)) }
  }
}
