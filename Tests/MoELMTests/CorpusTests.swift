import Crosspoint
import Testing

@testable import MoELM

/// Random bytes, so that any nine of them tell where they are.
@Suite struct CorpusTests {
  /// Where a sequence lies; it must be one of the text, its targets a byte further.
  private func place(of inputs: [UInt8], _ targets: [UInt8], in text: [UInt8]) throws -> Int {
    #expect(inputs.dropFirst() == targets.dropLast())
    let sequence = inputs + targets.suffix(1)
    return try #require((0...text.count - 9).first { Array(text[$0..<$0 + 9]) == sequence })
  }

  @Test(arguments: [100, 399, 2000, 10_007]) func heldOutBytesAreOfEveryPartAndNeverTrainedOn(length: Int) throws {
    var generator = SplitMix64(seed: UInt64(length))
    let text = (0..<length).map { _ in UInt8(truncatingIfNeeded: generator.next()) }
    let corpus = try Corpus(text, context: 8, batch: 4)
    #expect(corpus.parts == max(1, min(16, length / 180)))
    var (isHeldOut, isRead) = (Array(repeating: false, count: length), Array(repeating: false, count: length))
    var (inputs, targets) = ([UInt8](repeating: 0, count: 8), [UInt8](repeating: 0, count: 8))
    for window in 0..<corpus.heldOutWindows {
      corpus.copyHeldOut(window, of: corpus.heldOutWindows, inputs: &inputs, targets: &targets)
      let start = try place(of: inputs, targets, in: text)
      #expect(!isRead[start..<start + 8].contains(true), "windows do not overlap")
      for place in start..<start + 8 { isRead[place] = true }
      for place in start..<start + 9 { isHeldOut[place] = true }
    }
    let partLength = length / corpus.parts
    for part in 0..<corpus.parts { #expect(isHeldOut[part * partLength..<(part + 1) * partLength].contains(true)) }
    #expect(isHeldOut.count { $0 } <= length / 10 + 9)

    var isTrained = [Bool](repeating: false, count: length)
    for number in 0..<400 {
      corpus.copySequence(number, step: 3, seed: 5, inputs: &inputs, targets: &targets)
      let start = try place(of: inputs, targets, in: text)
      for place in start..<start + 9 { isTrained[place] = true }
    }
    #expect(!zip(isTrained, isHeldOut).contains { $0 && $1 })
    #expect(isTrained.count { $0 } > min(length, 2000) / 2)
  }
}
