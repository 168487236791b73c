import CrosspointCompression
import CrosspointCore
import CrosspointFabric
import CrosspointRouting
import CrosspointTestSupport
import CrosspointTokens
import Testing

@testable import CrosspointExchange

/// Experts that begin with the rows that are there.
@Suite struct WavesTests {
  /// How ranks lie, and which bodies travel with their announcements.
  struct Net: Sendable {
    var ranks: Int
    var perNode = 1
    /// 0: no body, and no marks; 1000: marks, and hardly any body.
    var smallBytes: Int?

    func cluster(_ link: LinkModel? = nil) -> SimulatedCluster {
      SimulatedCluster(ranks: ranks, ranksPerNode: perNode, deadline: .seconds(20), link: link)
    }

    static let all = [nil, 0, 1000].flatMap { small in
      [(1, 1), (2, 1), (3, 1), (4, 1), (4, 2), (3, 3)].map { Net(ranks: $0.0, perNode: $0.1, smallBytes: small) }
    }
  }

  static let hidden = 24
  static let experts = 6

  static func exchange(
    _ fabric: any Fabric, _ options: ExchangeOptions, _ net: Net
  ) throws -> ExpertExchange {
    try ExpertExchange(
      fabric: fabric, layout: ExpertLayout(experts: experts, hidden: hidden), options: options,
      smallBytes: net.smallBytes)
  }

  /// A step of a rank; the last of several has no tokens. Those of the others begin with the rank's number.
  static func step(
    _ exchange: ExpertExchange, _ fabric: any Fabric,
    seen: ((TransferKind, DispatchHandle, ExpertWave) throws(CrosspointError) -> Void)?
  ) throws(CrosspointError) -> StepResult {
    let rank = UInt64(fabric.rank)
    let count = fabric.rank == fabric.rankCount - 1 && fabric.rankCount > 1 ? 0 : 60 + 3 * fabric.rank
    let tokens = try clusteredBatch(rows: count, hidden: hidden, seed: rank)
    for row in 0..<count { tokens.row(row)[0] = Float(rank) }
    let routing = try randomRouting(tokens: count, topK: 3, experts: experts, seed: 10 * rank)
    let dy = try randomBatch(rows: count, hidden: hidden, seed: 100 * rank)
    guard let seen else { return try trainingStep(exchange, tokens: tokens, routing: routing, dy: dy) }
    return try wavedStep(exchange, tokens: tokens, routing: routing, dy: dy, seen: seen)
  }

  @Test(arguments: Net.all, [ExchangeOptions.Copies.perExpert, .perRank, .perNode(ranks: nil)])
  func everyRowIsInOneWave(net: Net, copies: ExchangeOptions.Copies) throws {
    try net.cluster().run { fabric in
      let exchange = try Self.exchange(fabric, ExchangeOptions(copies: copies), net)
      var seen = [TransferKind.dispatch: SeenWaves(), .combineBackward: SeenWaves()]
      var rowsPerExpert: [Int] = []
      _ = try Self.step(exchange, fabric) { kind, handle, wave throws(CrosspointError) in
        seen[kind]!.add(wave)
        rowsPerExpert = handle.rowsPerExpert
      }
      for (kind, waves) in seen {
        let flaw = waves.flaw(rowsPerExpert: rowsPerExpert)
        #expect(flaw == nil, "\(kind): \(flaw!)")
      }
    }
  }

  /// Where bodies travel and every rank is a node.
  @Test(arguments: 2...4, [(ExchangeOptions.Copies.perExpert, 0), (.perRank, 1000)])
  func aWaveIsWhatOneRankSentAndTheOwnRowsComeFirst(
    ranks: Int, _ way: (copies: ExchangeOptions.Copies, smallBytes: Int)
  ) throws {
    let net = Net(ranks: ranks, smallBytes: way.smallBytes)
    let sources = try net.cluster().run { fabric -> [Int] in
      let exchange = try Self.exchange(fabric, ExchangeOptions(copies: way.copies), net)
      var sources: [Int] = []
      _ = try Self.step(exchange, fabric) { kind, handle, wave throws(CrosspointError) in
        guard kind == .dispatch else { return }
        let from = Set(wave.rows.map { Int(handle.rows.row($0)[0]) })
        #expect(from.count == 1)
        if from.first != sources.last { sources.append(from.first!) }
      }
      return sources
    }
    for (rank, sources) in sources.enumerated() {
      // The last rank has no tokens.
      #expect(sources.sorted() == Array(0..<ranks - 1))
      if rank < ranks - 1 { #expect(sources.first == rank) }
    }
  }

  /// Rank 2 sends its bodies only when the experts of rank 0 have worked on its own rows and on rank 1's.
  @Test(arguments: [(ExchangeOptions.Copies.perExpert, 0), (.perRank, 1000)])
  func expertsWorkBeforeTheLastRankSends(copies: ExchangeOptions.Copies, smallBytes: Int) throws {
    let worked = [TransferKind.dispatch: Signal(), .combineBackward: Signal()]
    let net = Net(ranks: 3, smallBytes: smallBytes)
    let moves = [TransferKind.dispatch, .combineBackward].map { ($0, StepPhase.phase(.move, of: $0).exchange) }
    try net.cluster().run { base in
      let fabric = WatchedFabric(base) { number in
        guard base.rank == 2, let kind = moves.first(where: { $0.1 == number })?.0 else { return }
        #expect(worked[kind]!.wait(), "rank 0 waits for rank 2 in \(kind)")
      }
      let exchange = try Self.exchange(fabric, ExchangeOptions(copies: copies), net)
      let tokens = try randomBatch(rows: 60, hidden: Self.hidden, seed: UInt64(fabric.rank))
      var rows = [TransferKind.dispatch: 0, .combineBackward: 0]
      // One expert on each rank for every token, so that each rank sends each 60 rows.
      let routing = try Routing(
        topkIndices: (0..<180).map { Int32(2 * ($0 % 3)) }, topkWeights: Array(repeating: 0.5, count: 180), topK: 3,
        experts: Self.experts)
      _ = try wavedStep(
        exchange, tokens: tokens, routing: routing, dy: randomBatch(rows: 60, hidden: Self.hidden, seed: 7)
      ) { kind, _, wave throws(CrosspointError) in
        rows[kind]! += wave.rows.count
        if fabric.rank == 0, rows[kind]! == 120 { worked[kind]!.raise() }
      }
    }
  }

  static let options = [
    ExchangeOptions(), ExchangeOptions(wire: .init(.bf16)), ExchangeOptions(wire: .init(try! .entropy(bits: 3))),
    ExchangeOptions(compression: .crossPolytope(), wire: .init(try! .rotated(bits: 4))),
    ExchangeOptions(wire: .init(.bf16), withinNode: .plain, agreement: .deferred),
  ]

  @Test(arguments: Net.all, options)
  func wavesChangeNoBitAndNoByte(net: Net, options: ExchangeOptions) throws {
    for copies in ExchangeOptions.Copies.all(ranks: net.ranks) {
      var options = options
      options.copies = copies
      // Some ranks work in waves, all, or none.
      let runs = try [0, 1, net.ranks].map { waved in
        try net.cluster(waved == 1 ? LocalWorkTests.link : nil).run { [options] fabric in
          let exchange = try Self.exchange(fabric, options, net)
          let result = try Self.step(
            exchange, fabric, seen: fabric.rank < waved ? { _, _, _ throws(CrosspointError) in } : nil)
          try exchange.settle()
          return (result, exchange.statistics.wireBytes)
        }
      }
      for run in runs[1...] {
        for (plain, waved) in zip(runs[0], run) {
          #expect(plain.0.isBitwiseEqual(to: waved.0), "\(copies)")
          #expect(plain.1 == waved.1, "\(copies)")
        }
      }
    }
  }

  @Test(arguments: Net.all.filter { $0.ranks > 1 }, [TransferKind.dispatch, .combineBackward])
  func aWaveThatThrowsIsTheSameErrorOnEveryRankAndTheExchangeGoesOn(net: Net, phase: TransferKind) throws {
    for copies in ExchangeOptions.Copies.all(ranks: net.ranks) {
      for agreement in [ExchangeOptions.Agreement.immediate, .deferred] {
        let plain = try net.cluster().run { fabric in
          try Self.step(Self.exchange(fabric, ExchangeOptions(copies: copies), net), fabric, seen: nil)
        }
        let found = try net.cluster().run { fabric in
          let exchange = try Self.exchange(fabric, ExchangeOptions(copies: copies, agreement: agreement), net)
          let error = #expect(throws: CrosspointError.self) {
            var waves = 0
            _ = try Self.step(exchange, fabric) { kind, handle, _ throws(CrosspointError) in
              guard kind == phase, fabric.rank == 1 else { return }
              waves += 1
              if waves == handle.rowsPerExpert.count {
                throw CrosspointError(.outOfMemory, operation: "experts", argument: "rows", "no room for 9")
              }
            }
            try exchange.settle()
          }
          let again = try Self.step(exchange, fabric) { _, _, _ throws(CrosspointError) in }
          try exchange.settle()
          return (error, again)
        }
        for (rank, (error, again)) in found.enumerated() {
          #expect(
            error?.code == .outOfMemory && error?.rank == 1 && error?.operation == "experts", "\(copies) \(agreement)")
          #expect(error?.message == "no room for 9")
          #expect(again.isBitwiseEqual(to: plain[rank]), "\(copies) \(agreement)")
        }
      }
    }
  }

  /// Every byte that rank 0 sends rank 1 with its announcement of a dispatch and in the exchange of bodies.
  @Test(arguments: Net.all.filter { $0.ranks > 1 })
  func afterAWaveThatThrowsTheHandleIsRefusedOnEveryRank(net: Net) throws {
    for copies in ExchangeOptions.Copies.all(ranks: net.ranks) {
      let refused = try net.cluster().run { fabric in
        let exchange = try Self.exchange(fabric, ExchangeOptions(copies: copies), net)
        let tokens = try randomBatch(rows: 60, hidden: Self.hidden, seed: UInt64(fabric.rank))
        let routing = try randomRouting(tokens: 60, topK: 3, experts: Self.experts, seed: UInt64(fabric.rank))
        let handle = try exchange.dispatch(tokens, routing)
        let y = try exchange.combine(handle.rows, handle)
        func backward() throws -> CrosspointError.Code? {
          do throws(CrosspointError) {
            _ = try exchange.combineBackward(y, handle) { _, _ throws(CrosspointError) in
              guard fabric.rank == 1 else { return }
              throw CrosspointError(.outOfMemory, operation: "experts", argument: "rows", "no room for 9")
            }
            return nil
          } catch {
            return error.code
          }
        }
        return [try backward(), try backward()]
      }
      #expect(refused.allSatisfy { $0 == [.outOfMemory, .handleMisuse] }, "\(copies): \(refused)")
    }
  }

  @Test(arguments: [StepPhase.Part.announce, .move]) func damageIsTheSameOnEveryRank(part: StepPhase.Part) throws {
    let net = Net(ranks: 2, smallBytes: 1000)
    let number = StepPhase.phase(part, of: .dispatch).exchange
    @Sendable func step(_ fabric: any Fabric) throws -> StepResult {
      try Self.step(
        Self.exchange(fabric, ExchangeOptions(copies: .perRank), net), fabric,
        seen: { _, _, _ throws(CrosspointError) in })
    }
    let runs = try net.cluster().run { fabric in
      let counted = CountedFabric(fabric)
      return (try step(counted), counted.sizes[number])
    }
    let bytes = runs[0].1[1]
    #expect(bytes > 200)
    var refused = 0
    for offset in stride(from: 0, to: bytes, by: 7) {
      var cluster = net.cluster()
      cluster.faults = [.flippedByte(from: 0, to: 1, exchange: number, offset: offset)]
      let results = cluster.results(step)
      if case .success = results[0] {
        for (rank, result) in results.enumerated() { #expect(try result.get().isBitwiseEqual(to: runs[rank].0)) }
        continue
      }
      refused += 1
      let thrown = results.map { result in #expect(throws: CrosspointError.self) { try result.get() } }
      #expect(
        thrown[0] == thrown[1] && thrown[0]?.code == .corruptFrame && thrown[0]?.rank == 0, "\(offset): \(thrown)")
    }
    #expect(refused > 20, "\(refused) refused")
  }
}
