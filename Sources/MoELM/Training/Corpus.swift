import CrosspointCore
import Foundation

/// A text as bytes: the last twentieth is held out, the rest is for training.
public struct Corpus: Sendable {
  let bytes: [UInt8]
  /// Where the held-out part begins.
  let split: Int
  let context: Int
  /// Names the text in checkpoints: length and hash.
  let name: String

  /// - Parameter batch: sequences per step over all ranks.
  /// - Throws: `invalidArgument` for a text that is too short for one batch.
  public init(_ bytes: [UInt8], context: Int, batch: Int) throws(CrosspointError) {
    try require(!bytes.isEmpty, "data", "it is empty; give a text with --data FILE")
    let heldOut = max(context + 1, bytes.count / 20)
    let needed = batch * context + 1
    try require(
      bytes.count - heldOut >= needed, "batch",
      "\(batch) sequences of \(context) need \(needed) bytes of training text, there are "
        + "\(max(0, bytes.count - heldOut)); take a smaller --batch or a longer text")
    self.bytes = bytes
    self.context = context
    split = bytes.count - heldOut
    name = "\(bytes.count)-\(String(fnv1a(bytes), radix: 16))"
  }

  /// Copies one training sequence and what follows each of its bytes.
  ///
  /// Which one depends on seed, step and number alone: a resumed run, and any rank count, read the same.
  func copySequence(
    _ number: Int, step: Int, seed: UInt64, inputs: UnsafeMutablePointer<UInt8>, targets: UnsafeMutablePointer<UInt8>
  ) {
    var generator = Self.generator(.sequences, seed, step, number)
    copy(Int(generator.next() % UInt64(split - context)), inputs, targets)
  }

  /// What a random stream is for: streams of one seed do not overlap.
  enum Stream: UInt64 {
    case sequences = 0x0074_6F6B_656E_7300
    case masks = 0x006D_6173_6B73_0000
    case heldOutMasks = 0x6865_6C64_6F75_7400
  }

  /// The random stream of one sequence in one step.
  static func generator(_ stream: Stream, _ seed: UInt64, _ step: Int, _ number: Int) -> SplitMix64 {
    var generator = SplitMix64(seed: seed ^ stream.rawValue)
    generator = SplitMix64(seed: generator.next() ^ UInt64(step))
    return SplitMix64(seed: generator.next() ^ UInt64(number))
  }

  /// Windows of one context that do not overlap.
  var heldOutWindows: Int { (bytes.count - split - 1) / context }

  /// Copies held-out window `number` of `count` that are spread evenly.
  func copyHeldOut(
    _ number: Int, of count: Int, inputs: UnsafeMutablePointer<UInt8>, targets: UnsafeMutablePointer<UInt8>
  ) {
    copy(split + number * heldOutWindows / count * context, inputs, targets)
  }

  private func copy(_ start: Int, _ inputs: UnsafeMutablePointer<UInt8>, _ targets: UnsafeMutablePointer<UInt8>) {
    bytes.withUnsafeBufferPointer { bytes in
      inputs.update(from: bytes.baseAddress! + start, count: context)
      targets.update(from: bytes.baseAddress! + start + 1, count: context)
    }
  }
}
