import CrosspointCompression
import CrosspointFabric
import CrosspointRouting
import CrosspointTestSupport
import CrosspointTokens
import Testing

@testable import CrosspointExchange
@testable import CrosspointPolicy

/// What a policy calls measured is what arrives, whatever the rows hold.
@Suite struct PolicyMeasuresTests {
  static let hidden = 64
  static let experts = 4

  /// Rows to which something is done that a sample may miss or misjudge.
  enum Hostile: String, CaseIterable, Sendable {
    case ordinary, outlierColumn, hugeColumn, outlierRows, oneHugeRow, constantColumn, equalRows, tiny, clustered

    func tokens(_ rank: Int, step: Int) throws -> TokenBatch {
      let rows = 700
      let seed = UInt64(7 + rank + 100 * step)
      let batch =
        self == .clustered
        ? try clusteredBatch(rows: rows, hidden: hidden, noise: 0.02, seed: seed)
        : try randomBatch(rows: rows, hidden: hidden, seed: seed)
      for row in 0..<rows {
        for column in 0..<hidden {
          let value = batch.base + row * hidden + column
          switch self {
          case .ordinary, .clustered: break
          case .outlierColumn: if column == 0 { value.pointee *= 1000 }
          case .hugeColumn: if column == 0 { value.pointee *= 1e30 }
          case .outlierRows: if row % 97 == 13 { value.pointee *= 300 }
          case .oneHugeRow: if row == 401 { value.pointee *= 1e30 }
          case .constantColumn: if column == 3 { value.pointee = 5000 }
          case .equalRows: value.pointee = Float(column) - 20.5
          case .tiny: value.pointee *= 1e-30
          }
        }
      }
      return batch
    }
  }

  /// Squares in double precision: of what is lost, and of all, over the tokens of a rank.
  private static func squares(_ x: [Float], _ y: [Float]) -> (lost: Double, whole: Double) {
    zip(x, y).reduce(into: (0, 0)) { sum, pair in
      let (a, b) = (Double(pair.0), Double(pair.1))
      sum.lost += (b - a) * (b - a)
      sum.whole += a * a
    }
  }

  @Test func rowsThatCannotBeMeasuredAreSaidToBeSo() throws {
    let choices = try SimulatedCluster(ranks: 2).run { fabric in
      let exchange = try ExpertExchange(
        fabric: fabric, layout: ExpertLayout(experts: 2, hidden: Self.hidden),
        options: .init(nonFinite: .propagate, policy: .budget(bytes: 0.5)))
      let tokens = try randomBatch(rows: 200, hidden: Self.hidden, seed: 1)
      if fabric.rank == 1 { for row in 0..<200 { tokens.base[row * Self.hidden] = .nan } }
      let routing = try randomRouting(tokens: 200, topK: 1, experts: 2, notSent: 0, seed: 2)
      let handle = try exchange.dispatch(tokens, routing)
      _ = try exchange.combine(handle.rows, handle)
      return exchange.statistics.choices[0]
    }
    for choice in choices {
      #expect(choice?.reason == .unmeasured && choice?.wire == .fp32)
      #expect(choice?.description.contains("cannot be measured") == true)
    }
  }

  @Test(
    arguments: Hostile.allCases,
    [
      ExchangeOptions.Policy.budget(bytes: 0.6), .budget(bytes: 0.25), .budget(bytes: 0.05),
      .budget(relativeError: 0.2), .budget(relativeError: 0.01),
    ])
  func whatAPolicyCallsMeasuredIsWhatArrives(rows: Hostile, policy: ExchangeOptions.Policy) throws {
    var policy = policy
    policy.transfers = [.dispatch]
    let ranks = 2
    let results = try SimulatedCluster(ranks: ranks).run { [policy] fabric in
      let exchange = try ExpertExchange(
        fabric: fabric, layout: ExpertLayout(experts: Self.experts, hidden: Self.hidden),
        options: .init(compensation: .none, policy: policy))
      // The first transfer is measured, and that of the next sample: those between go by unseen.
      return try (0..<2).map { step in
        budgetPolicy(exchange)?.state.clock = step * TransferKind.allCases.count * BudgetPolicy.sampleInterval
        let tokens = try rows.tokens(fabric.rank, step: step)
        let mine = try ExpertLayout(experts: Self.experts, hidden: 1).experts(of: fabric.rank, rankCount: ranks)
        let others = (0..<Self.experts).filter { !mine.contains($0) }
        let routing = try Routing(
          topkIndices: (0..<tokens.rows).map { Int32(others[$0 % others.count]) },
          topkWeights: [Float](repeating: 1, count: tokens.rows), topK: 1, experts: Self.experts)
        let before = budgetPolicy(exchange)?.state[.dispatch].choice
        let handle = try exchange.dispatch(tokens, routing)
        let home = try exchange.combine(handle.rows, handle)
        let choice = try #require(exchange.statistics.choices[0])
        return (before, choice, Self.squares(tokens.array, home.array))
      }
    }
    for step in 0..<2 {
      let sums = results.map { $0[step].2 }
      let (lost, whole) = sums.reduce(into: (0.0, 0.0)) { $0 = ($0.0 + $1.lost, $0.1 + $1.whole) }
      let arrived = lost == 0 ? 0 : (lost / whole).squareRoot()
      let (before, choice) = (results[0][step].0, results[0][step].1)
      if step > 0, before?.wire != choice.wire || before?.clusterRate != choice.clusterRate {
        // Chosen at the end of this transfer: nothing has gone with it.
        #expect(choice.measuredError == nil || choice.measuredError == 0)
        continue
      }
      let measured = try #require(choice.measuredError)
      #expect(abs(measured - arrived) <= 1e-4 * arrived + 1e-12, "\(rows), \(step): \(choice); \(arrived) arrived")
    }
  }
}
