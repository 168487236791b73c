import CrosspointCore
import CrosspointTestSupport
import CrosspointTokens
import Testing

@testable import CrosspointCompression

@Suite struct WireWeightedTests {
  private static let (rows, hidden) = (400, 64)
  /// Two of a token's three choices weigh little.
  private static let weights = (0..<rows).map { [Float(0.8), 0.15, 0.05][$0 % 3] }

  private static func decoded(_ x: [Float], _ format: WireFormat, _ weights: [Float]?, memory: RowMemory? = nil) throws
    -> [Float]
  {
    let frame = try encodeFrame(
      x, hidden: hidden, groups: [rows / 4, 3 * rows / 4], as: format, importances: weights,
      labels: memory == nil ? nil : (0..<rows).map { Int32($0 % 4) }, memory: memory)
    return try decodeFrame(frame, hidden: hidden, groups: [rows / 4, 3 * rows / 4], memory: memory)
  }

  /// The root mean square error of the rows of one weight.
  private static func error(_ y: [Float], _ x: [Float], choice: Int) -> Double {
    let places = x.indices.filter { $0 / hidden % 3 == choice }
    return relativeError(places.map { y[$0] }, places.map { x[$0] })
  }

  private static func memory() throws -> RowMemory {
    let rows = normalFloats(400 * hidden, seed: 5)
    return try RowMemory(
      learnedFrom: TokenBatch(rows, hidden: hidden), labels: (0..<400).map { Int32($0 % 4) },
      codec: RowCodec(hidden: hidden, seed: 7, pool: BufferPool()))
  }

  @Test(arguments: [false, true]) func errorsAreInInverseProportionToWeights(remembers: Bool) throws {
    let x = normalFloats(Self.rows * Self.hidden, seed: 1)
    let memory = remembers ? try Self.memory() : nil
    let y = try Self.decoded(x, .init(named: "weighted:5"), Self.weights, memory: memory)
    let errors = (0..<3).map { Self.error(y, x, choice: $0) }
    // Classes of half an octave are within a fifth.
    #expect(abs(errors[1] / errors[0] / (0.8 / 0.15) - 1) < 0.25, "\(errors)")
    #expect(abs(errors[2] / errors[0] / (0.8 / 0.05) - 1) < 0.25, "\(errors)")
  }

  @Test(arguments: [2.0, 3]) func theWeighedErrorIsLessThanThatOfEqualSteps(rate: Double) throws {
    let x = normalFloats(Self.rows * Self.hidden, seed: 2)
    let losses = try ["weighted", "entropy"].map { name in
      let y = try Self.decoded(x, .init(named: "\(name):\(rate)"), Self.weights)
      return x.indices.reduce(0.0) { sum, place in
        let error = Double(Self.weights[place / Self.hidden] * (y[place] - x[place]))
        return sum + error * error
      }
    }
    #expect(losses[0] < 0.5 * losses[1], "\(losses)")
  }

  @Test func rowsWithoutWeightsAreAllAlike() throws {
    let x = normalFloats(Self.rows * Self.hidden, seed: 3)
    let weighted = relativeError(try Self.decoded(x, .init(named: "weighted:3"), nil), x)
    let entropy = relativeError(try Self.decoded(x, .init(named: "entropy:3"), nil), x)
    #expect(abs(weighted / entropy - 1) < 0.01, "\(weighted), \(entropy)")
  }

  @Test func rowsThatAllWeighNothingAreAllAlikeToo() throws {
    let x = normalFloats(Self.rows * Self.hidden, seed: 3)
    let alike = relativeError(try Self.decoded(x, .init(named: "weighted:3"), nil), x)
    let zero = relativeError(
      try Self.decoded(x, .init(named: "weighted:3"), [Float](repeating: 0, count: Self.rows)), x)
    #expect(abs(zero / alike - 1) < 0.03, "\(zero), \(alike)")
  }

  /// No weight, whatever it is, makes rows worthless.
  @Test func oddWeightsAreClassesToo() throws {
    let x = normalFloats(Self.rows * Self.hidden, seed: 4)
    var weights = Self.weights
    (weights[0], weights[3], weights[6], weights[9]) = (.nan, 0, .infinity, -0.8)
    let y = try Self.decoded(x, .init(named: "weighted:6"), weights)
    for row in 0..<Self.rows {
      let range = row * Self.hidden..<(row + 1) * Self.hidden
      let limit = row == 9 ? 0.02 : 1
      #expect(relativeError(Array(y[range]), Array(x[range])) < limit, "row \(row)")
    }
  }

  @Test func theWeightsArrive() throws {
    let x = normalFloats(Self.rows * Self.hidden, seed: 6)
    let frame = try encodeFrame(
      x, hidden: Self.hidden, groups: [Self.rows], as: .init(named: "weighted:2"), importances: Self.weights)
    let codec = try RowCodec(hidden: Self.hidden, seed: 7, pool: BufferPool())
    var (y, found) = ([Float](repeating: 0, count: x.count), [Float](repeating: 0, count: Self.rows))
    try y.withUnsafeMutableBufferPointer { y in
      try found.withUnsafeMutableBufferPointer { found in
        try frame.withUnsafeBytes {
          try codec.decode(
            $0, into: [RowTarget(first: RowPointer(y.baseAddress!), rows: Self.rows, weightsFound: found.baseAddress!)])
        }
      }
    }
    for row in 0..<Self.rows { #expect(abs(found[row] / (Self.weights[row] / 0.8) - 1) < 0.2, "row \(row)") }
  }
}
