import CrosspointCore
import CrosspointExchange
import CrosspointFabric
import CrosspointPolicy
import CrosspointRouting
import CrosspointTestSupport
import CrosspointTokens
import Testing

/// Tokens, outputs, gradients and results in memory that the exchange did not allocate.
@Suite struct CallersMemoryTests {
  static let hidden = 19

  @Test(arguments: ["compression=off", "compression=lsh:functions=2,wire=bf16", "copies=rank"], [1, 3])
  func aStepInTheCallersMemoryHasTheSameBits(text: String, ranksPerNode: Int) throws {
    let options = try ExchangeOptions(named: text)
    try SimulatedCluster(ranks: 3, ranksPerNode: ranksPerNode).run { fabric in
      let rows = 40 + fabric.rank
      let values = try clusteredBatch(rows: rows, hidden: Self.hidden, seed: UInt64(fabric.rank))
      let dy = try TokenBatch(randomFloats(rows * Self.hidden, seed: 5), hidden: Self.hidden)
      let routing = try randomRouting(tokens: rows, topK: 2, experts: 5, seed: UInt64(fabric.rank))
      let expected = try trainingStep(
        Self.exchange(fabric, options), tokens: values, routing: routing, dy: dy)

      // One float in: no allocator aligns so.
      var memory = [Float](repeating: .nan, count: 1 + 4 * rows * Self.hidden)
      try memory.withUnsafeMutableBufferPointer { memory in
        func batch(_ index: Int) throws(CrosspointError) -> TokenBatch {
          let size = rows * Self.hidden
          return try TokenBatch(
            viewing: .init(rebasing: memory[(1 + index * size)..<(1 + (index + 1) * size)]), hidden: Self.hidden)
        }
        let tokens = try batch(0)
        let gradient = try batch(1)
        let y = try batch(2)
        let dx = try batch(3)
        _ = tokens.elements.update(fromContentsOf: values.elements)
        _ = gradient.elements.update(fromContentsOf: dy.elements)
        let exchange = try Self.exchange(fabric, options)
        let first = exchange.localExperts.lowerBound
        let handle = try exchange.dispatch(tokens, routing)
        let output = try ToyExperts().forward(handle.rows, rowsPerExpert: handle.rowsPerExpert, firstExpert: first)
        try exchange.combine(output, handle, into: y)
        let dOutput = try exchange.combineBackward(gradient, handle)
        let dRows = try ToyExperts().backward(
          handle.rows, dOutput, rowsPerExpert: handle.rowsPerExpert, firstExpert: first)
        try exchange.dispatchBackward(dRows, handle, into: dx)
        #expect(firstBitDifference(y.array, expected.y) == nil)
        #expect(firstBitDifference(dx.array, expected.tokenGradients) == nil)
        #expect(firstBitDifference(handle.topkWeightGradients, expected.weightGradients) == nil)
      }
    }
  }

  @Test func memoryOfTheWrongShapeOnOneRankIsNamedOnAll() throws {
    try SimulatedCluster(ranks: 2).run { fabric in
      let exchange = try Self.exchange(fabric, ExchangeOptions())
      let tokens = try TokenBatch(rows: 4, hidden: Self.hidden)
      let handle = try exchange.dispatch(tokens, randomRouting(tokens: 4, topK: 1, experts: 5, seed: 1))
      let result = try TokenBatch(rows: fabric.rank == 1 ? 3 : 4, hidden: Self.hidden)
      let error = #expect(throws: CrosspointError.self) { try exchange.combine(handle.rows, handle, into: result) }
      #expect(error?.argument == "result" && error?.rank == 1 && error?.operation == "combine")
      #expect(error?.message == "3 rows, 4 expected")
    }
  }

  private static func exchange(_ fabric: any Fabric, _ options: ExchangeOptions) throws -> ExpertExchange {
    try ExpertExchange(fabric: fabric, layout: ExpertLayout(experts: 5, hidden: hidden), options: options)
  }
}
