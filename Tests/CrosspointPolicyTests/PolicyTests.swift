import CrosspointCompression
import CrosspointCore
import CrosspointFabric
import CrosspointRouting
import CrosspointTestSupport
import CrosspointTokens
import Foundation
import Testing

@testable import CrosspointExchange
@testable import CrosspointPolicy

/// The policy of an exchange.
func budgetPolicy(_ exchange: ExpertExchange) -> BudgetPolicy? { exchange.policy as? BudgetPolicy }

/// Rows to keep a budget on.
enum PolicyData: String, CaseIterable, Sendable {
  case random, skewed, duplicates, constant, emptyRanks

  static let hidden = 64
  static let experts = 4

  func tokens(_ rank: Int, step: Int) throws -> TokenBatch {
    let seed = UInt64(1 + rank + 100 * step)
    let rows = self == .emptyRanks && !rank.isMultiple(of: 2) ? 0 : 192
    return switch self {
    case .random, .skewed, .emptyRanks: try randomBatch(rows: rows, hidden: Self.hidden, seed: seed)
    case .duplicates: try clusteredBatch(rows: rows, hidden: Self.hidden, noise: 1e-3, seed: seed)
    case .constant: try TokenBatch([Float](repeating: 1.5, count: rows * Self.hidden), hidden: Self.hidden)
    }
  }

  func routing(_ rank: Int, step: Int, tokens: Int) throws -> Routing {
    guard self == .skewed else {
      return try randomRouting(tokens: tokens, topK: 2, experts: Self.experts, seed: UInt64(rank + 10 * step))
    }
    // Nine of ten to the last expert.
    return try Routing(
      topkIndices: (0..<tokens).map { $0.isMultiple(of: 10) ? Int32($0 / 10 % Self.experts) : Int32(Self.experts - 1) },
      topkWeights: [Float](repeating: 1, count: tokens), topK: 1, experts: Self.experts)
  }

  /// Training steps on one rank.
  func train(_ exchange: ExpertExchange, rank: Int, steps: Range<Int>) throws -> [StepResult] {
    try steps.map { step in
      let tokens = try tokens(rank, step: step)
      return try trainingStep(
        exchange, tokens: tokens, routing: routing(rank, step: step, tokens: tokens.rows),
        dy: randomBatch(rows: tokens.rows, hidden: Self.hidden, seed: UInt64(step)))
    }
  }

  /// A forward pass on one rank, as an evaluation makes it.
  func evaluate(_ exchange: ExpertExchange, rank: Int, step: Int) throws -> TokenBatch {
    let tokens = try tokens(rank, step: step)
    let handle = try exchange.dispatch(tokens, routing(rank, step: step, tokens: tokens.rows))
    return try exchange.combine(handle.rows, handle)
  }

  /// Statistics of every rank after some steps.
  func statistics(ranks: Int, steps: Int, policy: ExchangeOptions.Policy) throws -> [LayerStatistics] {
    try SimulatedCluster(ranks: ranks).run { fabric in
      let exchange = try ExpertExchange(
        fabric: fabric, layout: ExpertLayout(experts: Self.experts, hidden: Self.hidden),
        options: .init(policy: policy))
      _ = try train(exchange, rank: fabric.rank, steps: 0..<steps)
      return exchange.statistics
    }
  }
}

@Suite struct PolicyTests {
  @Test(arguments: PolicyData.allCases, [0.15, 0.3])
  func aByteBudgetHoldsOverAllThatTravels(data: PolicyData, fraction: Double) throws {
    for ranks in fraction == 0.15 ? [1, 4] : [2] {
      let all = try data.statistics(ranks: ranks, steps: 10, policy: .budget(bytes: fraction))
      for kind in TransferKind.allCases {
        let wire = all.reduce(0) { $0 + $1[kind].wireBytes }
        let bf16 = all.reduce(0) { $0 + $1[kind].uncompressedBytes } / 2
        #expect(
          Double(wire) <= 1.03 * fraction * Double(bf16), "\(ranks) ranks, \(kind): \(Double(wire) / Double(bf16))")
        let choice = try #require(all[0].choices[kind.rawValue])
        #expect(choice.reason == (ranks == 1 ? .nothingTravels : .budget))
        // Where rows and not announcements are what travels.
        let measured = choice.measuredBytes ?? choice.predictedBytes
        if measured > fraction / 2 {
          #expect(abs(measured / choice.predictedBytes - 1) < 0.25, "\(choice)")
        }
      }
    }
  }

  @Test(arguments: PolicyData.allCases, [0.3, 0.05, 0.002])
  func anErrorBudgetHoldsForWhatTheExpertsReceive(data: PolicyData, budget: Double) throws {
    for ranks in 2...3 {
      let received = try received(
        data, ranks: ranks, options: .init(compensation: .none, policy: .budget(relativeError: budget)))
      let sent = try (0..<ranks).flatMap { try data.tokens($0, step: 2).array }
      #expect(relativeError(received, sent) <= 1.05 * budget)
    }
  }

  /// What identity experts give back after some steps: of each token the row that stood for it.
  private func received(_ data: PolicyData, ranks: Int, options: ExchangeOptions) throws -> [Float] {
    var options = options
    options.policy.transfers = [.dispatch]
    let all = try SimulatedCluster(ranks: ranks).run { [options] fabric in
      let exchange = try ExpertExchange(
        fabric: fabric, layout: ExpertLayout(experts: PolicyData.experts, hidden: PolicyData.hidden), options: options)
      var last: [Float] = []
      for step in 0..<3 {
        let tokens = try data.tokens(fabric.rank, step: step)
        let handle = try exchange.dispatch(tokens, Self.routingAway(fabric, tokens.rows))
        last = try exchange.combine(handle.rows, handle).array
      }
      return last
    }
    return all.flatMap(\.self)
  }

  /// Every token to an expert of another rank.
  private static func routingAway(_ fabric: any Fabric, _ tokens: Int) throws -> Routing {
    let mine = try ExpertLayout(experts: PolicyData.experts, hidden: 1).experts(
      of: fabric.rank, rankCount: fabric.rankCount)
    let others = (0..<PolicyData.experts).filter { !mine.contains($0) }
    return try Routing(
      topkIndices: (0..<tokens).map { Int32(others[$0 % others.count]) },
      topkWeights: [Float](repeating: 1, count: tokens), topK: 1, experts: PolicyData.experts)
  }

  @Test(arguments: [ExchangeOptions.Policy.budget(bytes: 0.03), .budget(bytes: 0.2), .budget(relativeError: 0.1)])
  func everyRankChoosesTheSame(policy: ExchangeOptions.Policy) throws {
    for data in [PolicyData.skewed, .duplicates, .emptyRanks] {
      let states = try SimulatedCluster(ranks: 4).run { fabric in
        let exchange = try ExpertExchange(
          fabric: fabric, layout: ExpertLayout(experts: PolicyData.experts, hidden: PolicyData.hidden),
          options: .init(policy: policy))
        _ = try data.train(exchange, rank: fabric.rank, steps: 0..<9)
        return (exchange.state, exchange.statistics.choices)
      }
      for (state, choices) in states {
        #expect(state == states[0].0)
        #expect(choices == states[0].1)
      }
    }
  }

  @Test func nearDuplicatesTravelAsClustersAndNoiseAsCodes() throws {
    let policy = ExchangeOptions.Policy.budget(bytes: 0.2)
    let duplicates = try PolicyData.duplicates.statistics(ranks: 2, steps: 3, policy: policy)[0]
    #expect(duplicates.choices[0]?.clusterRate != nil)
    #expect(duplicates.residualEnergy < 1e-4)
    let noise = try PolicyData.random.statistics(ranks: 2, steps: 3, policy: policy)[0]
    #expect(noise.choices[0]?.clusterRate == nil)
    #expect(noise.rowsSentFraction == 1)
  }

  @Test func aStateThatIsPutBackChoosesAsIfNothingHadHappened() throws {
    let data = PolicyData.duplicates
    let layout = try ExpertLayout(experts: PolicyData.experts, hidden: PolicyData.hidden)
    let results = try SimulatedCluster(ranks: 3).run { fabric in
      func exchange() throws -> ExpertExchange {
        try ExpertExchange(fabric: fabric, layout: layout, options: .init(policy: .budget(bytes: 0.2)))
      }
      let straight = try exchange()
      let expected = try data.train(straight, rank: fabric.rank, steps: 0..<12)
      let first = try exchange()
      _ = try data.train(first, rank: fabric.rank, steps: 0..<5)
      let state = try JSONEncoder().encode(first.state)
      let second = try exchange()
      try second.restore(try JSONDecoder().decode(ExchangeState.self, from: state))
      let resumed = try data.train(second, rank: fabric.rank, steps: 5..<12)
      return (
        zip(expected[5...], resumed).allSatisfy { $0.isBitwiseEqual(to: $1) },
        straight.state == second.state
      )
    }
    for (isEqual, sameState) in results {
      // Compensation gradients are a sum since the first step; with the identity there are none.
      #expect(isEqual)
      #expect(sameState)
    }
  }

  @Test func whileItDoesNotAdaptNothingIsRemembered() throws {
    try SimulatedCluster(ranks: 2).run { fabric in
      let exchange = try ExpertExchange(
        fabric: fabric, layout: ExpertLayout(experts: PolicyData.experts, hidden: PolicyData.hidden),
        options: .init(policy: .budget(bytes: 0.2)))
      _ = try PolicyData.random.train(exchange, rank: fabric.rank, steps: 0..<3)
      let before = budgetPolicy(exchange)?.state
      exchange.adapts = false
      _ = try PolicyData.constant.train(exchange, rank: fabric.rank, steps: 3..<15)
      #expect(budgetPolicy(exchange)?.state == before)
      exchange.adapts = true
      _ = try PolicyData.random.train(exchange, rank: fabric.rank, steps: 3..<4)
      #expect(budgetPolicy(exchange)?.state != before)
    }
  }

  @Test func aStateKeepsNothingOfAnEvaluation() throws {
    try SimulatedCluster(ranks: 2).run { fabric in
      let exchange = try ExpertExchange(
        fabric: fabric, layout: ExpertLayout(experts: PolicyData.experts, hidden: PolicyData.hidden),
        options: .init(policy: .budget(bytes: 0.2)))
      _ = try PolicyData.random.train(exchange, rank: fabric.rank, steps: 0..<1)
      let trained = exchange.state
      exchange.adapts = false
      _ = try PolicyData.constant.evaluate(exchange, rank: fabric.rank, step: 3)
      #expect(exchange.state == trained)
      _ = try PolicyData.random.train(exchange, rank: fabric.rank, steps: 1..<2)
      // What is restored meanwhile is what it goes on from.
      try exchange.restore(trained)
      exchange.adapts = true
      #expect(exchange.state == trained)
    }
  }

  @Test func aStateOfOtherOptionsIsRefused() throws {
    try SimulatedCluster(ranks: 2).run { fabric in
      let layout = try ExpertLayout(experts: PolicyData.experts, hidden: PolicyData.hidden)
      let plain = try ExpertExchange(fabric: fabric, layout: layout)
      let budgeted = try ExpertExchange(fabric: fabric, layout: layout, options: .init(policy: .budget(bytes: 0.2)))
      let (without, with) = (plain.state, budgeted.state)
      for (exchange, state) in [(plain, with), (budgeted, without)] {
        let error = #expect(throws: CrosspointError.self) { try exchange.restore(state) }
        #expect(error?.code == .checkpointMismatch && error?.argument == "policy")
      }
    }
  }

  @Test func aWarmPolicyLeasesNoNewMemory() throws {
    try SimulatedCluster(ranks: 2).run { fabric in
      let exchange = try ExpertExchange(
        fabric: fabric, layout: ExpertLayout(experts: PolicyData.experts, hidden: PolicyData.hidden),
        options: .init(policy: .budget(bytes: 0.2)))
      for _ in 0..<9 { _ = try PolicyData.random.train(exchange, rank: fabric.rank, steps: 0..<1) }
      let warm = exchange.pool.allocations
      for _ in 0..<9 { _ = try PolicyData.random.train(exchange, rank: fabric.rank, steps: 0..<1) }
      #expect(exchange.pool.allocations == warm)
    }
  }
}

@Suite struct PolicyAnswerTests {
  @Test func theAnswerIsLosslessWhereCompressionDoesNotPay() throws {
    func reason(_ policy: ExchangeOptions.Policy, rows: Int, hidden: Int) throws -> PolicyChoice.Reason? {
      try SimulatedCluster(ranks: 2).run { fabric in
        let exchange = try ExpertExchange(
          fabric: fabric, layout: ExpertLayout(experts: 4, hidden: hidden), options: .init(policy: policy))
        let tokens = try randomBatch(rows: rows, hidden: hidden, seed: 1)
        let handle = try exchange.dispatch(
          tokens, randomRouting(tokens: rows, topK: 1, experts: 4, notSent: 0, seed: 1))
        let y = try exchange.combine(handle.rows, handle)
        let choice = exchange.statistics.choices[0]
        #expect(choice?.wire == .fp32 && choice?.clusterRate == nil && choice?.measuredError == 0)
        // Weights aside, every bit came back.
        let routing = try randomRouting(tokens: rows, topK: 1, experts: 4, notSent: 0, seed: 1)
        for row in 0..<rows {
          let expected = tokens.row(row).map { $0 * routing.topkWeights[row] }
          #expect(firstBitDifference(Array(y.row(row)), expected) == nil)
        }
        return choice?.reason
      }[0]
    }
    #expect(try reason(.budget(bytes: 0.2), rows: 2, hidden: 8) == .fewRows)
    #expect(try reason(.budget(relativeError: 0.2), rows: 2, hidden: 8) == .fewRows)
    #expect(try reason(.budget(bytes: 2), rows: 200, hidden: 64) == .budgetAllows)
    #expect(try reason(.budget(bytes: 0.2), rows: 0, hidden: 64) == .nothingTravels)
    #expect(try reason(.budget(relativeError: 1e-9), rows: 200, hidden: 64) == .budget)
  }

  @Test func aBudgetBelowEverythingGetsTheFewestBytesAndSaysSo() throws {
    let choice = try PolicyData.random.statistics(ranks: 2, steps: 2, policy: .budget(bytes: 1e-6))[0].choices[0]
    #expect(choice?.reason == .unreachable)
    #expect(choice?.description.contains("above the budget") == true)
    #expect(try #require(choice?.measuredBytes) < 0.1)
  }

  @Test func theTextTellsWhatWasPredictedAndMeasured() throws {
    let choice = PolicyChoice(
      clusterRate: 0.125, wire: try .rotated(bits: 3), reason: .budget, predictedError: 0.25, measuredError: 0.24,
      predictedBytes: 0.1, measuredBytes: 0.09)
    #expect(
      "\(choice)" == "clusters:0.125 rotated:3: best within the budget; error 0.25 predicted, 0.24 measured; "
        + "bytes 0.1 of bf16 predicted, 0.09 measured")
  }

  @Test(arguments: [
    ExchangeOptions.Policy.budget(bytes: 0), .budget(bytes: -0.1), .budget(bytes: 2.001), .budget(bytes: .nan),
    .budget(bytes: .infinity), .budget(relativeError: 0), .budget(relativeError: -1), .budget(relativeError: 1.5),
    .budget(relativeError: .nan),
  ])
  func aBudgetOutsideItsRangeIsRefusedOnEveryRank(policy: ExchangeOptions.Policy) throws {
    let results = SimulatedCluster(ranks: 3).results { fabric in
      _ = try ExpertExchange(
        fabric: fabric, layout: ExpertLayout(experts: 4, hidden: 8), options: .init(policy: policy))
    }
    for result in results {
      let error = #expect(throws: CrosspointError.self) { try result.get() }
      #expect(error?.code == .invalidArgument)
      #expect(error?.argument.hasPrefix("budget(") == true)
    }
  }

  @Test func differentBudgetsNameTheRank() throws {
    let results = SimulatedCluster(ranks: 3).results { fabric in
      _ = try ExpertExchange(
        fabric: fabric, layout: ExpertLayout(experts: 4, hidden: 8),
        options: .init(policy: fabric.rank == 1 ? .budget(bytes: 0.2) : .budget(bytes: 0.3)))
    }
    for result in results {
      let error = #expect(throws: CrosspointError.self) { try result.get() }
      #expect(error?.code == .ranksDisagree)
      #expect(error?.argument == "policy" && error?.message.contains("bytes:0.2 on rank 1") == true)
    }
  }

  @Test func badTokensOnOneRankAreThrownOnAllAndTheExchangeGoesOn() throws {
    try SimulatedCluster(ranks: 3).run { fabric in
      let exchange = try ExpertExchange(
        fabric: fabric, layout: ExpertLayout(experts: 4, hidden: 64), options: .init(policy: .budget(bytes: 0.2)))
      for _ in 0..<2 {
        let tokens = try randomBatch(rows: 64, hidden: 64, seed: 3)
        if fabric.rank == 1 { tokens.elements[70] = .nan }
        let error = #expect(throws: CrosspointError.self) {
          _ = try exchange.dispatch(tokens, randomRouting(tokens: 64, topK: 1, experts: 4, notSent: 0, seed: 1))
        }
        #expect(error?.code == .nonFinite && error?.rank == 1)
        _ = try PolicyData.random.train(exchange, rank: fabric.rank, steps: 0..<1)
      }
    }
  }

  @Test func notANumberTravelsUnderAPolicyToo() throws {
    try SimulatedCluster(ranks: 2).run { fabric in
      let exchange = try ExpertExchange(
        fabric: fabric, layout: ExpertLayout(experts: 4, hidden: 64),
        options: .init(nonFinite: .propagate, policy: .budget(bytes: 0.2)))
      for step in 0..<10 {
        let tokens = try randomBatch(rows: 64, hidden: 64, seed: UInt64(step))
        if step != 4 { tokens.elements[70] = .nan }
        let handle = try exchange.dispatch(
          tokens, randomRouting(tokens: 64, topK: 1, experts: 4, notSent: 0, seed: 1))
        let y = try exchange.combine(handle.rows, handle)
        #expect(y.elements.contains { $0.isNaN } == (step != 4))
        // Nothing can be measured before the first step without.
        #expect((exchange.statistics.choices[0]?.wire == .fp32) == (step < 4))
      }
    }
  }

  @Test func everyRankKeepsTheSlowestSpeeds() throws {
    let policy = ExchangeOptions.Policy.fastest(relativeError: 0.2)
    let link = LinkModel(latency: .zero, bytesPerSecond: 1e7)
    let speeds = try SimulatedCluster(ranks: 3, link: link).run { fabric in
      let exchange = try ExpertExchange(
        fabric: fabric, layout: ExpertLayout(experts: 4, hidden: 64), options: .init(policy: policy))
      return budgetPolicy(exchange)?.state.speed
    }
    let speed = try #require(speeds[0])
    #expect(speeds.allSatisfy { $0 == speed })
    // A simulated link is never faster than its model.
    #expect(speed.linkSecondsPerByte >= 1e-7)
    #expect(speed.codecSecondsPerByte.count == PolicyMenu.trials.count)
    #expect(speed.codecSecondsPerByte.allSatisfy { $0 > 0 })
  }

  @Test func theFasterTheLinkTheQuickerTheCode() {
    // Bits per element of what keeps an error of a tenth; codes of fixed size take a nanosecond a byte, entropy codes ten.
    let bits = [1e-12, 1e-8, 1e-6].map { PolicyJudge.fastest(linkSecondsPerByte: $0) }
    #expect(bits[0].reason == .slowCodec && bits[0].wire == .fp32)
    #expect(bits[1].wire == WireFormat("rotated:4"))
    #expect(bits[2].wire.code == WireFormat(entropyRate: 1).code && bits[2].wire.rate < 4)
  }
}

extension PolicyJudge {
  /// What keeps an error of a tenth on a link of this speed, in the least time.
  fileprivate static func fastest(linkSecondsPerByte: Double) -> PolicyChoice {
    let speed = PolicySpeed(
      linkSecondsPerByte: linkSecondsPerByte, plainSecondsPerByte: 1e-10,
      codecSecondsPerByte: PolicyMenu.trials.indices.map { $0 < PolicyMenu.formats.count ? 1e-9 : 1e-8 })
    let judge = PolicyJudge(goal: .fastest(0.1), hidden: 64, announcementBytes: 100, speed: speed)
    var rows = PolicyMeasurement.gaussian(rows: 1000, hidden: 64)
    // Entropy codes take fewer bytes for the same error, and clusters none at all, but their own time is not counted.
    for index in PolicyMenu.knots.indices { rows.errors[0][PolicyMenu.formats.count + index] /= 64 }
    (rows.kept[1], rows.residuals[1]) = (10, 0)
    return judge.best(rows, current: nil, PolicyJudge.Corrections(), tightening: 0)
  }
}

extension PolicyMeasurement {
  /// Rows of unit variance, as rate and distortion say.
  static func gaussian(rows: Double, hidden: Double, easiness: Double = 1) -> PolicyMeasurement {
    var result = PolicyMeasurement()
    result.rows = rows
    result.pairs = rows
    result.energy = rows * hidden
    result.kept[0] = rows
    for (index, format) in PolicyMenu.trials.enumerated() {
      // Entropy coding is never the best here: it needs a bit and a half more than formats of fixed size.
      let lost = index < PolicyMenu.formats.count ? 0 : 1.5
      result.errors[0][index] = result.energy * easiness * pow(4, lost - format.rate)
      result.bytes[0][index] = rows * hidden * format.rate / 8
    }
    return result
  }
}
