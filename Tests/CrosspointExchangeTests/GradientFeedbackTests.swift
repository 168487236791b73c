import CrosspointCompression
import CrosspointCore
import CrosspointFabric
import CrosspointRouting
import CrosspointTestSupport
import CrosspointTokens
import Testing

@testable import CrosspointExchange

@Suite struct GradientFeedbackTests {
  static let hidden = 24
  static let experts = 4

  /// Steps whose gradient transfers carry the same rows every time; sums over steps of what was sent and of what arrived
  /// from the other rank, over rows, of combineBackward and of dispatchBackward.
  struct Sums: Sendable {
    var sent = [[Double]](repeating: [Double](repeating: 0, count: hidden), count: 2)
    var arrived = [[Double]](repeating: [Double](repeating: 0, count: hidden), count: 2)
    var errors: [Float] = []
    /// Σ over rows of their lengths, of one step.
    var lengths = [0.0, 0.0]

    func distance(_ transfer: Int) -> Double {
      zip(sent[transfer], arrived[transfer]).reduce(0) { $0 + ($1.0 - $1.1) * ($1.0 - $1.1) }.squareRoot()
    }
  }

  /// All tokens are rank 0's, all that are sent go to one expert of rank 1.
  private func run(_ options: ExchangeOptions, steps: Int, rows: Int = 9) throws -> Sums {
    let sums = try SimulatedCluster(ranks: 2).run { fabric in
      let exchange = try ExpertExchange(
        fabric: fabric, layout: ExpertLayout(experts: Self.experts, hidden: Self.hidden), options: options)
      let count = fabric.rank == 0 ? rows : 0
      let tokens = try randomBatch(rows: count, hidden: Self.hidden, seed: 1)
      let routing = try Routing(
        topkIndices: Array(repeating: 3, count: count), topkWeights: Array(repeating: 0.5, count: count), topK: 1,
        experts: Self.experts)
      var sums = Sums()
      func add(_ floats: [Float], _ weight: Float, to sum: inout [Double]) {
        for (i, value) in floats.enumerated() { sum[i % Self.hidden] += Double(weight * value) }
      }
      for _ in 0..<steps {
        let handle = try exchange.dispatch(tokens, routing)
        _ = try exchange.combine(handle.rows, handle)
        let dy = try randomBatch(rows: count, hidden: Self.hidden, seed: 2)
        let arrived = try exchange.combineBackward(dy, handle)
        add(dy.array, 0.5, to: &sums.sent[0])
        add(arrived.array, 1, to: &sums.arrived[0])
        let back = try randomBatch(rows: handle.rows.rows, hidden: Self.hidden, seed: 3)
        let home = try exchange.dispatchBackward(back, handle)
        add(back.array, 1, to: &sums.sent[1])
        add(home.array, 1, to: &sums.arrived[1])
      }
      if let feedback = exchange.feedback { sums.errors = Array(feedback.errors) }
      for (transfer, scale, seed) in [(0, Float(0.5), UInt64(2)), (1, 1, 3)] {
        let x = randomFloats(rows * Self.hidden, seed: seed).map { $0 * scale }
        sums.lengths[transfer] = (0..<rows).reduce(0) { sum, row in
          sum + x[row * Self.hidden..<(row + 1) * Self.hidden].reduce(0.0) { $0 + Double($1 * $1) }.squareRoot()
        }
      }
      return sums
    }
    // combineBackward goes from rank 0 to rank 1, dispatchBackward the other way.
    var joined = sums[0]
    joined.arrived[0] = sums[1].arrived[0]
    joined.sent[1] = sums[1].sent[1]
    joined.errors += sums[1].errors
    return joined
  }

  @Test(arguments: ["rotated:1", "rotated:2", "int4", "fp8"]) func sumsOverTimeStayWithinOneStepsError(
    text: String
  ) throws {
    let format = try #require(WireFormat(text))
    for rounding in Rounding.allCases {
      var options = ExchangeOptions(wire: .init(format), gradientRounding: rounding)
      let without = try run(options, steps: 40)
      options.errorFeedback = true
      let with = try run(options, steps: 40)
      for transfer in 0..<2 {
        // What is missing is what the sender still holds, …
        let held = with.errors.chunked(2)[transfer == 0 ? 0 : 3].reduce(0) { $0 + Double($1 * $1) }.squareRoot()
        #expect(abs(with.distance(transfer) - held) < 1e-3 * with.lengths[transfer], "\(format) \(rounding)")
        // … and no more than one step's coding can take from all its rows together.
        let most = (rounding == .stochastic && format.bits == 1 ? 2.5 : 0.7) * with.lengths[transfer]
        #expect(with.distance(transfer) < most, "\(format) \(rounding)")
        if rounding == .nearest, format.bits <= 2 {
          #expect(without.distance(transfer) > 4 * with.distance(transfer), "\(format): nothing to make good")
        }
      }
    }
  }

  @Test func losslessTransfersDoNotFeelIt() throws {
    let off = try run(ExchangeOptions(), steps: 3)
    let on = try run(ExchangeOptions(errorFeedback: true), steps: 3)
    #expect(off.arrived == on.arrived)
    #expect(on.errors.allSatisfy { $0 == 0 })
    #expect(on.errors.count == 2 * 2 * 2 * 2 * Self.hidden)
  }

  @Test func whatIsNotFiniteIsForgotten() throws {
    let errors = try SimulatedCluster(ranks: 2).run { fabric in
      let exchange = try ExpertExchange(
        fabric: fabric, layout: ExpertLayout(experts: Self.experts, hidden: Self.hidden),
        options: .init(wire: .init(.rotated(bits: 2)), errorFeedback: true, nonFinite: .propagate))
      let tokens = try randomBatch(rows: 6, hidden: Self.hidden, seed: 1)
      let routing = try randomRouting(tokens: 6, topK: 2, experts: Self.experts, seed: 2)
      for bad in [Float(0), .nan, .infinity, 3e38] {
        let dy = try randomBatch(rows: 6, hidden: Self.hidden, seed: 3)
        if bad != 0 { dy.elements[20] = bad }
        let handle = try exchange.dispatch(tokens, routing)
        _ = try exchange.combine(handle.rows, handle)
        let dOutput = try exchange.combineBackward(dy, handle)
        _ = try exchange.dispatchBackward(dOutput, handle)
      }
      return Array(exchange.feedback!.errors)
    }
    #expect(errors.allSatisfy { $0.allSatisfy(\.isFinite) })
  }

  /// A transfer that fails anywhere leaves every rank's errors as they were.
  @Test func aFailedTransferLeavesTheErrorsAlone() throws {
    try SimulatedCluster(ranks: 2).run { fabric in
      let exchange = try ExpertExchange(
        fabric: fabric, layout: ExpertLayout(experts: Self.experts, hidden: Self.hidden),
        options: .init(wire: .init(.rotated(bits: 1)), errorFeedback: true))
      let tokens = try randomBatch(rows: 6, hidden: Self.hidden, seed: 1)
      let routing = try randomRouting(tokens: 6, topK: 2, experts: Self.experts, notSent: 0, seed: 2)
      let good = try randomBatch(rows: 6, hidden: Self.hidden, seed: 3)
      let bad = try randomBatch(rows: 6, hidden: Self.hidden, seed: 4)
      if fabric.rank == 1 { bad.elements[7] = .nan }
      let handle = try exchange.dispatch(tokens, routing)
      _ = try exchange.combine(handle.rows, handle)
      _ = try exchange.combineBackward(good, handle)
      let before = Array(exchange.feedback!.errors)
      #expect(before.contains { $0 != 0 })
      let rows = try randomBatch(rows: handle.rows.rows, hidden: Self.hidden, seed: 5)
      if fabric.rank == 1 { rows.elements[3] = .infinity }
      #expect(throws: CrosspointError.self) { _ = try exchange.dispatchBackward(rows, handle) }
      let again = try exchange.dispatch(tokens, routing)
      _ = try exchange.combine(again.rows, again)
      #expect(throws: CrosspointError.self) { _ = try exchange.combineBackward(bad, again) }
      #expect(Array(exchange.feedback!.errors) == before)
      exchange.feedback!.reset()
      #expect(exchange.feedback!.errors.allSatisfy { $0 == 0 })
    }
  }

  @Test func aWarmExchangeLeasesNoNewMemory() throws {
    try SimulatedCluster(ranks: 3).run { fabric in
      let exchange = try ExpertExchange(
        fabric: fabric, layout: ExpertLayout(experts: 4, hidden: 32),
        options: .init(wire: .init(.rotated(bits: 2)), gradientRounding: .stochastic, errorFeedback: true))
      try StatisticsTests.steps(exchange, rank: fabric.rank, count: 3)
      let warm = exchange.pool.allocations
      try StatisticsTests.steps(exchange, rank: fabric.rank, count: 5)
      #expect(exchange.pool.allocations == warm)
    }
  }

  /// Another step, another layer: other numbers; the same step again: the same.
  @Test func roundingFollowsSeedLayerAndStep() throws {
    func gradients(layer: Int, step: UInt64, seed: UInt64 = 1) throws -> [[Float]] {
      try SimulatedCluster(ranks: 2).run { fabric in
        let exchange = try ExpertExchange(
          fabric: fabric, layout: ExpertLayout(experts: Self.experts, hidden: Self.hidden),
          options: .init(wire: .init(.int4), gradientRounding: .stochastic, seed: seed), layer: layer)
        exchange.gradientSteps = step
        let result = try trainingStep(
          exchange, tokens: randomBatch(rows: 8, hidden: Self.hidden, seed: 1),
          routing: randomRouting(tokens: 8, topK: 2, experts: Self.experts, notSent: 0, seed: 2),
          dy: randomBatch(rows: 8, hidden: Self.hidden, seed: 3))
        #expect(exchange.gradientSteps == step + 1)
        return result.tokenGradients
      }
    }
    let first = try gradients(layer: 0, step: 7)
    #expect(try gradients(layer: 0, step: 7) == first)
    #expect(try gradients(layer: 1, step: 7) != first)
    #expect(try gradients(layer: 0, step: 8) != first)
    #expect(try gradients(layer: 0, step: 7, seed: 2) != first)
  }
}

extension Array {
  /// The halves of both halves: `[rank 0: combineBackward, dispatchBackward, rank 1: the same]` for two ranks' errors.
  fileprivate func chunked(_ perRank: Int) -> [ArraySlice<Element>] {
    let size = count / (2 * perRank)
    return (0..<2 * perRank).map { self[$0 * size..<($0 + 1) * size] }
  }
}
