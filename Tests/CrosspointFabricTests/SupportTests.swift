import CrosspointTestSupport
import Testing

@Test func centralDifferencesFindTheGradientOfAQuadratic() {
  let x: [Float] = [1, -2, 0.5]
  let gradient = centralDifferences(at: x) { x in x.reduce(0) { $0 + Double($1) * Double($1) } }
  #expect(relativeError(gradient, x.map { 2 * $0 }) < 1e-5)
}

@Test func bitDifferencesSeeSignedZerosAndLengths() {
  #expect(firstBitDifference([1, 0], [1, 0]) == nil)
  #expect(firstBitDifference([1, 0], [1, -0.0]) == 1)
  #expect(firstBitDifference([1], [1, 2]) == 1)
}

@Test func randomFloatsAreStandardisedAndRepeatable() {
  let values = randomFloats(10_000, seed: 3)
  #expect(values == randomFloats(10_000, seed: 3))
  let mean = values.reduce(0, +) / 10_000
  let variance = values.reduce(0) { $0 + $1 * $1 } / 10_000
  #expect(abs(mean) < 0.05 && abs(variance - 1) < 0.05)
}
