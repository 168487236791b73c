import CrosspointCompression
import CrosspointCore
import CrosspointFabric
import CrosspointRouting
import CrosspointTestSupport
import CrosspointTokens
import Testing

@testable import CrosspointExchange

/// One copy per rank together with what else can be set.
@Suite struct CopiesSettingsTests {
  /// Rounding of gradients works on rows, so that the sum over the rows of a rank stays unbiased over steps.
  @Test func unbiasedGradientsAddUp() throws {
    let (hidden, count) = (24, 9)
    func gradients(_ options: ExchangeOptions, steps: Int) throws -> [Double] {
      try SimulatedCluster(ranks: 2).run { fabric in
        let exchange = try ExpertExchange(
          fabric: fabric, layout: ExpertLayout(experts: 4, hidden: hidden), options: options)
        let rows = fabric.rank == 0 ? count : 0
        // Experts 2 and 3 are on the other rank.
        let routing = try Routing(
          topkIndices: (0..<rows).flatMap { _ in [2, 3] as [Int32] },
          topkWeights: Array(repeating: 0.5, count: 2 * rows), topK: 2, experts: 4)
        let tokens = try randomBatch(rows: rows, hidden: hidden, seed: 1)
        let dy = try randomBatch(rows: rows, hidden: hidden, seed: 2)
        var sum = [Double](repeating: 0, count: hidden)
        for _ in 0..<steps {
          let handle = try exchange.dispatch(tokens, routing)
          _ = try exchange.combine(handle.rows, handle)
          let back = try exchange.dispatchBackward(exchange.combineBackward(dy, handle), handle)
          for (index, value) in back.array.enumerated() { sum[index % hidden] += Double(value) }
        }
        return sum
      }[0]
    }
    func error(steps: Int) throws -> Double {
      var wire = ExchangeOptions.Wire(try .rotated(bits: 2))
      (wire.dispatch, wire.combine) = (.fp32, .fp32)
      let exact = try gradients(.init(copies: .perRank), steps: steps)
      return relativeError(try gradients(.init(copies: .perRank, wire: wire), steps: steps), exact)
    }
    let (one, thirty) = (try error(steps: 1), try error(steps: 30))
    #expect(thirty < 0.4 * one, "\(thirty) after thirty steps, \(one) after one")
  }

  /// A row's importance is the weight of all its experts on the rank.
  @Test func rowsOfMoreWeightTravelInMoreBits() throws {
    let (hidden, rows) = (64, 32)
    var wire = ExchangeOptions.Wire(try .mixed(low: 2, high: 8))
    wire.combine = .fp32
    let options = ExchangeOptions(copies: .perRank, wire: wire)
    let outputs = try SimulatedCluster(ranks: 2).run { fabric in
      let exchange = try ExpertExchange(
        fabric: fabric, layout: ExpertLayout(experts: 4, hidden: hidden), options: options)
      let others: [Int32] = fabric.rank == 0 ? [2, 3] : [0, 1]
      // A quarter of the rows weighs most, but no single weight of theirs does.
      let routing = try Routing(
        topkIndices: (0..<rows).flatMap { _ in others },
        topkWeights: (0..<rows).flatMap { $0 % 4 == 0 ? [0.4, 0.4] : [0.45, 0.01] as [Float] }, topK: 2, experts: 4)
      let tokens = try randomBatch(rows: rows, hidden: hidden, seed: UInt64(fabric.rank))
      let handle = try exchange.dispatch(tokens, routing)
      let y = try exchange.combine(handle.rows, handle).array
      return (0..<rows).map { row in
        let total: Float = row % 4 == 0 ? 0.8 : 0.46
        return relativeError(
          Array(y[row * hidden..<(row + 1) * hidden]), tokens.row(row).map { $0 * total })
      }
    }
    for errors in outputs {
      for (row, error) in errors.enumerated() {
        if row % 4 == 0 { #expect(error < 0.02, "row \(row): \(error)") } else { #expect(error > 0.1, "row \(row)") }
      }
    }
  }
}
