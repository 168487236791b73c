import CrosspointCore
import CrosspointTokens

/// `count` floats of mean 0 and variance 1, approximately normal (the sum of four uniforms), all finite.
public func randomFloats(_ count: Int, seed: UInt64) -> [Float] {
  var generator = SplitMix64(seed: seed)
  return (0..<count).map { _ in
    let sum = generator.nextUnit() + generator.nextUnit() + generator.nextUnit() + generator.nextUnit()
    return (sum - 2) * 1.732_050_8
  }
}

/// A batch of ``randomFloats(_:seed:)``.
public func randomBatch(rows: Int, hidden: Int, seed: UInt64) throws(CrosspointError) -> TokenBatch {
  try TokenBatch(randomFloats(rows * hidden, seed: seed), hidden: hidden)
}
