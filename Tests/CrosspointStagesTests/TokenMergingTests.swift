import CrosspointCore
import CrosspointFabric
import CrosspointRouting
import CrosspointStages
import CrosspointTestSupport
import CrosspointTokens
import Testing

/// The representative that each token joins, by the definition; −1 for padding.
private func reference(
  _ x: [[Double]], _ layout: RowLayout, threshold: Double, window: Int
) -> [Int] {
  func cosine(_ a: [Double], _ b: [Double]) -> Double {
    func dot(_ a: [Double], _ b: [Double]) -> Double { zip(a, b).reduce(0) { $0 + $1.0 * $1.1 } }
    let norms = (dot(a, a) * dot(b, b)).squareRoot()
    return norms == 0 ? 0 : dot(a, b) / norms
  }
  var result: [Int] = []
  var start = 0
  for rows in layout.rowsPerSequence {
    for token in start..<start + rows {
      guard layout.tokensPerRow[token] > 0 else {
        result.append(-1)
        continue
      }
      let candidates = (max(start, token - window)..<token).filter { result[$0] == $0 }
      let best = candidates.max { cosine(x[token], x[$0]) < cosine(x[token], x[$1]) }
      result.append(best.flatMap { cosine(x[token], x[$0]) >= threshold ? $0 : nil } ?? token)
    }
    start += rows
  }
  return result
}

@Suite("Token merging")
struct TokenMergingTests {
  let layout = try! RowLayout(tokensPerSequence: [9, 0, 8, 1], isPadding: (0..<18).map { $0 == 3 || $0 == 16 })

  private func alike(_ rows: Int, hidden: Int, seed: UInt64) throws -> [Float] {
    try clusteredBatch(rows: rows, hidden: hidden, kinds: 3, noise: 0.4, seed: seed).array
  }

  @Test(arguments: [false, true], [3, 9])
  func joinsTheMostSimilarRepresentativeWithinTheWindow(isCausal: Bool, window: Int) throws {
    let hidden = 5
    let x = try alike(18, hidden: hidden, seed: 4)
    let merging = try TokenMerging(.init(threshold: .given(0.8), window: window, isCausal: isCausal))
    let rows = try merging.reduce(TokenBatch(x, hidden: hidden), layout, training)
    let tokens = (0..<18).map { x[$0 * hidden..<($0 + 1) * hidden].map(Double.init) }
    let heads = reference(tokens, layout, threshold: 0.8, window: window)
    let representatives = heads.indices.filter { heads[$0] == $0 }
    #expect(representatives.count < 14 && representatives.count > 4)
    #expect(merging.rowOfToken == heads.map { Int32(representatives.firstIndex(of: $0) ?? -1) })
    for (row, head) in representatives.enumerated() {
      let members = heads.indices.filter { heads[$0] == head }
      #expect(rows.layout.tokensPerRow[row] == members.count)
      let expected = (0..<hidden).map { d in
        isCausal ? tokens[head][d] : members.reduce(0.0) { $0 + tokens[$1][d] } / Double(members.count)
      }
      #expect(relativeError(rows.tokens.row(row).map(Double.init), expected) < 1e-6)
    }
  }

  @Test(arguments: [false, true])
  func gradientsMatchCentralDifferences(isCausal: Bool) throws {
    let merging = try TokenMerging(.init(threshold: .given(0.35), window: 6, isCausal: isCausal))
    let pipeline = try TokenPipeline([merging], causal: isCausal)
    try expectExactGradients(layout, pipeline)
    #expect(pipeline.statistics[0].fraction < 0.9)
  }

  /// Whatever comes later, nothing earlier moves by a bit.
  @Test func theCausalFormLeaksNothing() throws {
    let x = try alike(40, hidden: 4, seed: 8)
    func outputs(_ x: [Float], _ tokens: Int, isCausal: Bool) throws -> [Float] {
      let merging = try TokenMerging(.init(threshold: .given(0.7), window: 8, isCausal: isCausal))
      let pooling = try WindowPooling(.fixed(3), isShifted: true)
      let pipeline = try TokenPipeline([merging, pooling], causal: isCausal)
      return try forward(
        pipeline, TokenBatch(Array(x[..<(tokens * 4)]), hidden: 4), RowLayout(sequences: 1, length: tokens), training
      ).y
    }
    let whole = try outputs(x, 40, isCausal: true)
    var leaks = 0
    for tokens in 8..<40 {
      #expect(firstBitDifference(try outputs(x, tokens, isCausal: true), Array(whole[..<(tokens * 4)])) == nil)
      let means = try outputs(x, 40, isCausal: false)
      if firstBitDifference(try outputs(x, tokens, isCausal: false), Array(means[..<(tokens * 4)])) != nil {
        leaks += 1
      }
    }
    #expect(leaks > 0, "the same check must see that means leak")
  }

  @Test(arguments: [0, 0.25, 0.6])
  func theThresholdSettlesAtItsRateAndIsTheSameOnEveryRank(rate: Double) throws {
    let results = try SimulatedCluster(ranks: 3).run { fabric in
      let merging = try TokenMerging(
        .init(threshold: .learned(rate: rate, start: 0.5, gain: 0.05), isCausal: true))
      var (bits, mergedLate) = ([UInt64](), 0)
      for step in 0..<300 {
        let rows = fabric.rank == 1 && step % 2 == 0 ? 0 : 60
        let x = try clusteredBatch(
          rows: rows, hidden: 8, noise: 0.5, seed: UInt64(step * 8 + fabric.rank))
        let kept = try merging.reduce(x, RowLayout(sequences: 1, length: rows), training).tokens.rows
        if step >= 200 && rows > 0 { mergedLate += rows - kept }
        try merging.step { counts throws(CrosspointError) in
          try counts.withUnsafeMutableBufferPointer { values throws(CrosspointError) in
            try fabric.allreduce(values, operation: "stages")
          }
        }
        bits.append(merging.threshold.bitPattern)
      }
      return (bits, mergedLate)
    }
    #expect(results[0].0 == results[1].0 && results[0].0 == results[2].0)
    #expect(Set(results[0].0).count > 5)
    let merged = results.reduce(0) { $0 + $1.1 }
    #expect(abs(Double(merged) / Double(250 * 60) - rate) < 0.02)
  }

  @Test func stateContinuesBitForBit() throws {
    let options = MergingOptions(threshold: .learned(rate: 0.4), isCausal: true)
    let (a, b) = (try TokenMerging(options), try TokenMerging(options))
    let x = try TokenBatch(alike(50, hidden: 4, seed: 1), hidden: 4)
    func advance(_ merging: TokenMerging) throws {
      _ = try merging.reduce(x, RowLayout(sequences: 1, length: 50), training)
      try merging.step { _ in }
    }
    for _ in 0..<5 { try advance(a) }
    try b.restore(a.state)
    for _ in 0..<5 {
      try advance(a)
      try advance(b)
      #expect(a.threshold.bitPattern == b.threshold.bitPattern)
    }
    #expect(a.threshold != 0.9)
  }

  @Test func badOptionsAreRefusedByName() throws {
    func error(_ options: MergingOptions) -> CrosspointError? { failure { _ = try TokenMerging(options) } }
    let cases: [(CrosspointError?, String, String)] = [
      (error(.init(threshold: .given(-1), isCausal: true)), "threshold", "-1.0"),
      (error(.init(threshold: .given(1.2), isCausal: true)), "threshold", "1.2"),
      (error(.init(threshold: .given(.nan), isCausal: true)), "threshold", "nan"),
      (error(.init(threshold: .learned(rate: 1.5), isCausal: true)), "rate", "1.5"),
      (error(.init(threshold: .learned(rate: 0.5, gain: -2), isCausal: true)), "gain", "-2.0"),
      (error(.init(threshold: .given(0.5), window: 0, isCausal: true)), "window", "0"),
      (
        failure {
          _ = try TokenMerging(.init(threshold: .given(0.5), window: 4, isCausal: true)).reduce(
            TokenBatch([1, 2, 3], hidden: 1), RowLayout(sequences: 1, length: 3), training)
        }, "window", "4"
      ),
      (
        failure {
          _ = try TokenMerging(.init(threshold: .given(0.5), window: 1, isCausal: true)).reduce(
            TokenBatch([1, .nan, 3], hidden: 1), RowLayout(sequences: 1, length: 3), training)
        }, "tokens", "row 1"
      ),
    ]
    for (error, argument, value) in cases {
      #expect(error?.operation == "merging" && error?.argument == argument && error?.message.contains(value) == true)
    }
  }
}
