import CrosspointCompression
import CrosspointCore
import CrosspointFabric
import CrosspointRouting
import CrosspointTestSupport
import CrosspointTokens
import Testing

@testable import CrosspointExchange

/// Codes of centroids: what arrives and what comes home are the centroids' up to the error of the code.
@Suite struct CentroidCodesTests {
  static let hidden = 48

  private func options(
    _ clusters: ClusterOptions, _ wire: WireFormat, _ copies: ExchangeOptions.Copies,
    _ compensation: ResidualCompensation = .none
  ) -> ExchangeOptions {
    var wires = ExchangeOptions.Wire(.fp32)
    wires.dispatch = wire
    return ExchangeOptions(
      compression: .crossPolytope(clusters), copies: copies, compensation: compensation, wire: wires, seed: 3)
  }

  /// A step of three ranks that send their own experts rows too: what identity experts bring home, and the statistics.
  private func step(
    _ options: ExchangeOptions, topK: Int
  ) throws -> [(arrived: [Float], home: [Float], statistics: LayerStatistics)] {
    try SimulatedCluster(ranks: 3).run { fabric in
      let exchange = try ExpertExchange(
        fabric: fabric, layout: ExpertLayout(experts: 6, hidden: Self.hidden), options: options)
      let tokens = try clusteredBatch(
        rows: 60, hidden: Self.hidden, kinds: 9, noise: 0.2, seed: UInt64(fabric.rank))
      let routing = try randomRouting(tokens: 60, topK: topK, experts: 6, seed: UInt64(10 + fabric.rank))
      let handle = try exchange.dispatch(tokens, routing)
      let home = try exchange.combine(handle.rows, handle)
      return (handle.rows.array, home.array, exchange.statistics)
    }
  }

  @Test(arguments: [1, 2, 3], [true, false])
  func rowsAndResultsAreThoseOfMeansOfTokens(topK: Int, centred: Bool) throws {
    for (rate, copies) in [(nil, .perExpert), (0.5, .perExpert), (nil, .perRank)] as [(Float?, ExchangeOptions.Copies)]
    {
      let clusters = ClusterOptions(functions: 2, width: 16, centred: centred, rate: rate)
      for compensation in [ResidualCompensation.none, .identity] {
        let exact = try step(options(clusters, .fp32, copies, compensation), topK: topK)
        let coded = try step(options(clusters, .rotated(bits: 8), copies, compensation), topK: topK)
        for rank in 0..<3 {
          let (exact, coded) = (exact[rank], coded[rank])
          #expect(exact.statistics.rowsSent == coded.statistics.rowsSent)
          #expect(coded.statistics.rowsSent < coded.statistics.rowsRouted)
          #expect(abs(exact.statistics.residualEnergy - coded.statistics.residualEnergy) < 1e-5)
          #expect(exact.statistics.residualEnergy > 0.001)
          #expect(relativeError(coded.arrived, exact.arrived) < 0.02)
          #expect(relativeError(coded.home, exact.home) < 0.02)
        }
      }
    }
  }

  /// A rank's rows for its own experts never see a code or a rotation.
  @Test func rowsThatStayAreMeansOfTokensBitForBit() throws {
    let rows = try [WireFormat.rotated(bits: 2), .fp32].map { wire in
      try SimulatedCluster(ranks: 1).run { fabric in
        let exchange = try ExpertExchange(
          fabric: fabric, layout: ExpertLayout(experts: 2, hidden: Self.hidden),
          options: options(ClusterOptions(functions: 2, width: 16), wire, .perExpert))
        let tokens = try clusteredBatch(rows: 60, hidden: Self.hidden, kinds: 9, noise: 0.2, seed: 1)
        let handle = try exchange.dispatch(tokens, randomRouting(tokens: 60, topK: 1, experts: 2, seed: 2))
        return handle.rows.array
      }[0]
    }
    #expect(firstBitDifference(rows[0], rows[1]) == nil)
  }

  /// Members of a cluster agree on the largest coordinates that their hash saw: in their mean these stand out, and codes in
  /// the same coordinates would cut them off. Loose clusters of one function show it most.
  @Test func codesOfCentroidsHaveTheErrorOfCodes() throws {
    let hidden = 256
    func arrived(_ wire: WireFormat) throws -> [Float] {
      try SimulatedCluster(ranks: 2).run { fabric in
        let exchange = try ExpertExchange(
          fabric: fabric, layout: ExpertLayout(experts: 2, hidden: hidden),
          options: options(ClusterOptions(), wire, .perExpert))
        let count = fabric.rank == 0 ? 1500 : 0
        let tokens = try randomBatch(rows: count, hidden: hidden, seed: 5)
        let routing = try Routing(
          topkIndices: Array(repeating: 1, count: count), topkWeights: Array(repeating: 1, count: count), topK: 1,
          experts: 2)
        let handle = try exchange.dispatch(tokens, routing)
        return handle.rows.array
      }[1]
    }
    let exact = try arrived(.fp32)
    #expect(exact.count < 600 * hidden)
    for (bits, error) in [(4, 0.0975), (6, 0.0254), (8, 0.0064)] {
      #expect(try relativeError(arrived(.rotated(bits: bits)), exact) < 1.2 * error, "\(bits) bits")
    }
  }

  /// Gradients travel exactly: what differs is what 8 bits took from the tokens on their way out.
  @Test(arguments: [ResidualCompensation.identity, .lowRank(2)])
  func gradientsAreThoseOfMeansOfTokens(compensation: ResidualCompensation) throws {
    let clusters = ClusterOptions(functions: 2, width: 16)
    let steps = try [WireFormat.fp32, .rotated(bits: 8)].map { wire in
      try SimulatedCluster(ranks: 3).run { fabric in
        let exchange = try ExpertExchange(
          fabric: fabric, layout: ExpertLayout(experts: 6, hidden: Self.hidden),
          options: options(clusters, wire, .perExpert, compensation))
        let tokens = try clusteredBatch(
          rows: 60, hidden: Self.hidden, kinds: 9, noise: 0.3, seed: UInt64(fabric.rank))
        let routing = try randomRouting(tokens: 60, topK: 2, experts: 6, seed: UInt64(10 + fabric.rank))
        let dy = try randomBatch(rows: 60, hidden: Self.hidden, seed: UInt64(20 + fabric.rank))
        let step = try trainingStep(exchange, tokens: tokens, routing: routing, dy: dy)
        let statistics = exchange.statistics
        #expect(statistics.residualEnergy > 0.001)
        #expect(statistics.rowsSent > statistics.rowsRouted / 2 && statistics.rowsSent < statistics.rowsRouted)
        return step
      }
    }
    for (exact, coded) in zip(steps[0], steps[1]) {
      #expect(relativeError(coded.y, exact.y) < 0.02)
      #expect(relativeError(coded.tokenGradients, exact.tokenGradients) < 0.02)
      #expect(relativeError(coded.weightGradients, exact.weightGradients) < 0.02)
      #expect(exact.compensationGradients.isEmpty == (compensation == .identity))
      if compensation != .identity {
        #expect(exact.compensationGradients.contains { $0 != 0 })
        #expect(relativeError(coded.compensationGradients, exact.compensationGradients) < 0.02)
      }
    }
  }

  /// A cap that holds when many tokens are alike and breaks in the middle of clustering when they are not: every rank hears.
  @Test func memoryThatEndsAmongClustersIsTheSameErrorEverywhere() throws {
    let codes = try SimulatedCluster(ranks: 2).run { fabric in
      let exchange = try ExpertExchange(
        fabric: fabric, layout: ExpertLayout(experts: 2, hidden: Self.hidden),
        options: {
          var options = options(ClusterOptions(functions: 3, width: 16), try .rotated(bits: 4), .perExpert)
          options.capacityBytes = fabric.rank == 0 ? 300_000 : .max
          return options
        }(), smallBytes: 0)
      let routing = try randomRouting(tokens: 800, topK: 1, experts: 2, notSent: 0, seed: 1)
      let alike = try clusteredBatch(rows: 800, hidden: Self.hidden, kinds: 9, noise: 0, seed: 2)
      _ = try exchange.dispatch(alike, routing)
      let error = #expect(throws: CrosspointError.self) {
        _ = try exchange.dispatch(randomBatch(rows: 800, hidden: Self.hidden, seed: 3), routing)
      }
      _ = try exchange.dispatch(alike, routing)
      return (error?.code, error?.rank)
    }
    for (code, rank) in codes { #expect(code == .outOfMemory && rank == 0) }
  }
}
