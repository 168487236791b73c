import CrosspointCore
import Glibc

/// What every expert scored for every token, with what the backward pass needs of it.
struct Scores: Sendable {
  /// `[T × E]`: softmax(z), or σ(z) if ``isSigmoid``.
  private(set) var values: [Float] = []
  /// Whether the scores are σ(z).
  private(set) var isSigmoid = false
  /// `[T]`: log Σ exp z; empty unless softmax(z) was computed.
  private(set) var logSumExp: [Float] = []
  /// `[T × E]`: softmax(z) besides sigmoid scores, for the z-loss; otherwise empty.
  private var softmaxBeside: [Float] = []

  /// `[T × E]`: softmax(z), where scores are softmax or the z-loss is on.
  var softmax: [Float] { isSigmoid ? softmaxBeside : values }

  /// Becomes the scores of other logits, in the memory that it has.
  /// - Parameter logits: `[T × E]`, finite.
  mutating func score(_ logits: UnsafeBufferPointer<Float>, experts: Int, isSigmoid: Bool, forZLoss: Bool) {
    self.isSigmoid = isSigmoid
    logSumExp.removeAll(keepingCapacity: true)
    softmaxBeside.removeAll(keepingCapacity: true)
    guard isSigmoid else { return Self.softmax(logits, experts, &values, &logSumExp) }
    values.resize(logits.count)
    values.withUnsafeMutableBufferPointer { out in
      for i in logits.indices { out[i] = 1 / (1 + exp(-logits[i])) }
    }
    if forZLoss { Self.softmax(logits, experts, &softmaxBeside, &logSumExp) }
  }

  private static func softmax(
    _ logits: UnsafeBufferPointer<Float>, _ experts: Int, _ probabilities: inout [Float], _ logSumExp: inout [Float]
  ) {
    probabilities.resize(logits.count)
    probabilities.withUnsafeMutableBufferPointer { out in
      for start in stride(from: 0, to: logits.count, by: experts) {
        let row = start..<start + experts
        var largest = -Float.infinity
        for i in row { largest = max(largest, logits[i]) }
        var sum: Float = 0
        for i in row {
          out[i] = exp(logits[i] - largest)
          sum += out[i]
        }
        for i in row { out[i] /= sum }
        logSumExp.append(largest + log(sum))
      }
    }
  }
}
