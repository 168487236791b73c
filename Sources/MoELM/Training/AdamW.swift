import Foundation

/// AdamW (Loshchilov and Hutter, arXiv 1711.05101, algorithm 2) with bias correction.
struct AdamW {
  var beta1: Float = 0.9
  var beta2: Float = 0.95
  var epsilon: Float = 1e-8
  var weightDecay: Float

  /// One step over all tensors of a set.
  ///
  /// - Parameters:
  ///   - gradientScale: what gradients are multiplied by first: the clipping.
  ///   - step: counted from 0.
  func update(_ set: ParameterSet, learningRate: Float, gradientScale: Float, step: Int) {
    guard set.count > 0 else { return }
    let correction1 = 1 - Float(pow(Double(beta1), Double(step + 1)))
    let correction2 = 1 - Float(pow(Double(beta2), Double(step + 1)))
    let (firstMoments, secondMoments) = (set.firstMoments, set.secondMoments)
    let gradients = set.gradients.baseAddress!
    let (beta1, beta2, epsilon) = (beta1, beta2, epsilon)
    map(firstMoments, gradients, into: firstMoments, count: set.count) {
      $0 * beta1 + $1 * (gradientScale * (1 - beta1))
    }
    let gradientScale2 = gradientScale * gradientScale * (1 - beta2)
    map(secondMoments, gradients, into: secondMoments, count: set.count) { $0 * beta2 + $1 * $1 * gradientScale2 }
    let root = 1 / correction2
    for specification in set.specifications {
      let range = set.ranges[specification.name]!
      let rate = specification.rate * learningRate / correction1
      let keep = specification.decays ? 1 - learningRate * weightDecay : 1
      let start = range.lowerBound
      MoELM.update(set.values + start, firstMoments + start, secondMoments + start, count: range.count) { w, m, v in
        w * keep - m * rate / ((v * root).squareRoot() + epsilon)
      }
    }
  }
}

/// `Σ x²` in double precision, in a fixed order.
func squaredNorm(_ x: UnsafeMutableBufferPointer<Float>) -> Double {
  var total = 0.0
  let chunk = 1024
  for start in stride(from: 0, to: x.count, by: chunk) {
    let base = x.baseAddress! + start
    total += Double(sum(base, base, count: min(chunk, x.count - start)) { $0 * $1 })
  }
  return total
}

/// The C library's cosine, which some names here would hide.
func cosine(_ angle: Double) -> Double { cos(angle) }
