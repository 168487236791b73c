import CrosspointCore
import Foundation

/// A text as bytes, in up to 16 equal parts: the last twentieth of each is held out, the rest is for training.
///
/// The parts make the held-out text of one kind with the other. The end of a long text alone may be of another: then
/// runs that learn equally well differ in what they happen to know of it.
package struct Corpus: Sendable {
  let bytes: [UInt8]
  let parts: Int
  let partLength: Int
  /// Bytes of a part that are held out, at its end.
  let heldOut: Int
  let context: Int
  /// Names the text in checkpoints: length and hash.
  let name: String

  /// - Parameter batch: sequences per step over all ranks.
  /// - Throws: `invalidArgument` for a text that is too short for one batch.
  package init(_ bytes: [UInt8], context: Int, batch: Int) throws(CrosspointError) {
    try require(!bytes.isEmpty, "data", "it is empty; give a text with --data FILE")
    parts = max(1, min(16, bytes.count / 20 / (context + 1)))
    partLength = bytes.count / parts
    heldOut = max(context + 1, partLength / 20)
    let (training, needed) = (parts * max(0, partLength - heldOut), batch * context + 1)
    try require(
      training >= needed, "batch",
      "\(batch) sequences of \(context) need \(needed) bytes of training text, there are \(training); take a smaller "
        + "--batch or a longer text")
    self.bytes = bytes
    self.context = context
    name = "\(bytes.count)-\(String(fnv1a(bytes), radix: 16))-\(parts)"
  }

  /// Copies one training sequence and what follows each of its bytes.
  ///
  /// Which one depends on seed, step and number alone: a resumed run, and any rank count, read the same.
  func copySequence(
    _ number: Int, step: Int, seed: UInt64, inputs: UnsafeMutablePointer<UInt8>, targets: UnsafeMutablePointer<UInt8>
  ) {
    var generator = Self.generator(.sequences, seed, step, number)
    let starts = partLength - heldOut - context  // of each part
    let start = Int(generator.next() % UInt64(parts * starts))
    copy(start / starts * partLength + start % starts, inputs, targets)
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
  var heldOutWindows: Int { parts * windowsPerPart }

  private var windowsPerPart: Int { (heldOut - 1) / context }

  /// Copies held-out window `number` of `count` that are spread evenly.
  func copyHeldOut(
    _ number: Int, of count: Int, inputs: UnsafeMutablePointer<UInt8>, targets: UnsafeMutablePointer<UInt8>
  ) {
    let window = number * heldOutWindows / count
    let (part, place) = window.quotientAndRemainder(dividingBy: windowsPerPart)
    copy((part + 1) * partLength - heldOut + place * context, inputs, targets)
  }

  private func copy(_ start: Int, _ inputs: UnsafeMutablePointer<UInt8>, _ targets: UnsafeMutablePointer<UInt8>) {
    bytes.withUnsafeBufferPointer { bytes in
      inputs.update(from: bytes.baseAddress! + start, count: context)
      targets.update(from: bytes.baseAddress! + start + 1, count: context)
    }
  }
}
