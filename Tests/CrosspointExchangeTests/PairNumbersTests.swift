import CrosspointCompression
import CrosspointCore
import CrosspointTestSupport
import Testing

@testable import CrosspointExchange

/// Shares of copies and their gradients on the wire.
@Suite struct PairNumbersTests {
  /// A block of them, of exactly the bytes that are announced, and what comes back.
  private static func sent(_ numbers: [Float], _ coding: PairNumbers) -> (bytes: Int, back: [Float]) {
    var block = [UInt8](repeating: 0, count: coding.bytes(numbers.count))
    var back = [Float](repeating: -1, count: numbers.count)
    numbers.withUnsafeBufferPointer { numbers in
      block.withUnsafeMutableBytes { coding.write(numbers, to: $0) }
    }
    block.withUnsafeBytes { block in back.withUnsafeMutableBufferPointer { coding.read($0, from: block) } }
    return (block.count, back)
  }

  @Test func theyAreAsPreciseAsTheRowsWithThem() throws {
    let formats = ["fp32", "bf16", "fp16", "fp8", "int8", "rotated:6", "entropy:9.5", "entropy:2.5"]
    let codings = try formats.map { PairNumbers(with: try WireFormat(named: $0)) }
    #expect(codings == [.fp32, .bf16, .bf16, .int8, .int8, .int8, .bf16, .int8])
  }

  @Test(arguments: [0, 1, 15, 16, 17, 255, 256, 257, 3000])
  func aNumberTakesAByteAndIsHalfAStepOffAtMost(count: Int) {
    var generator = SplitMix64(seed: UInt64(count))
    let numbers = (0..<count).map { _ in Float.random(in: -3...5, using: &generator) }
    #expect(firstBitDifference(Self.sent(numbers, .fp32).back, numbers) == nil)
    let (bytes, back) = Self.sent(numbers, .int8)
    #expect(bytes <= 2 * count)
    #expect(count < 3000 || bytes == 3000 + 12 * 8)
    for (number, decoded) in zip(numbers, back) { #expect(abs(number - decoded) <= 8 / 255 * 0.501) }
  }

  /// Rows with one expert only have shares of 1.
  @Test func equalNumbersComeBackAsTheyAre() {
    #expect(Self.sent(Array(repeating: 1, count: 300), .int8).back.allSatisfy { $0 == 1 })
  }

  /// They are 256 at most.
  @Test func whatIsNotFiniteSpoilsItsRunAlone() {
    var numbers = (0..<600).map { Float($0) }
    numbers[300] = .infinity
    let back = Self.sent(numbers, .int8).back
    #expect(back[256..<512].allSatisfy { $0.isNaN })
    #expect(back[..<256].allSatisfy { $0.isFinite } && back[512...].allSatisfy { $0.isFinite })
  }
}
