#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// What every expert scored for every token, with what the backward pass needs of it.
struct Scores: Sendable {
  /// `[T × E]`: softmax(z), or σ(z) if ``isSigmoid``.
  var values: [Float]
  /// Whether the scores are σ(z).
  let isSigmoid: Bool
  /// `[T]`: log Σ exp z; empty unless softmax(z) was computed.
  var logSumExp: [Float] = []
  /// `[T × E]`: softmax(z) beside sigmoid scores, for the z-loss; otherwise empty.
  private var softmaxBeside: [Float] = []

  /// `[T × E]`: softmax(z), where scores are softmax or the z-loss is on.
  var softmax: [Float] { isSigmoid ? softmaxBeside : values }

  /// - Parameter logits: `[T × E]`, finite.
  init(logits: UnsafeBufferPointer<Float>, experts: Int, isSigmoid: Bool, forZLoss: Bool) {
    self.isSigmoid = isSigmoid
    guard isSigmoid else {
      (values, logSumExp) = Self.softmax(logits, experts)
      return
    }
    values = [Float](unsafeUninitializedCapacity: logits.count) { out, count in
      for i in logits.indices { out.initializeElement(at: i, to: 1 / (1 + exp(-logits[i]))) }
      count = logits.count
    }
    if forZLoss { (softmaxBeside, logSumExp) = Self.softmax(logits, experts) }
  }

  private static func softmax(
    _ logits: UnsafeBufferPointer<Float>, _ experts: Int
  ) -> (probabilities: [Float], logSumExp: [Float]) {
    let tokens = logits.count / experts
    var normalisers = [Float](repeating: 0, count: tokens)
    let probabilities = [Float](unsafeUninitializedCapacity: logits.count) { out, count in
      for token in 0..<tokens {
        let row = token * experts..<(token + 1) * experts
        var largest = -Float.infinity
        for i in row { largest = max(largest, logits[i]) }
        var sum: Float = 0
        for i in row {
          let value = exp(logits[i] - largest)
          out.initializeElement(at: i, to: value)
          sum += value
        }
        for i in row { out[i] /= sum }
        normalisers[token] = largest + log(sum)
      }
      count = logits.count
    }
    return (probabilities, normalisers)
  }
}
