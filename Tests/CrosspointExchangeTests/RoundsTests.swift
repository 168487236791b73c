import CrosspointCompression
import CrosspointCore
import CrosspointFabric
import CrosspointRouting
import CrosspointTestSupport
import CrosspointTokens
import Testing

@testable import CrosspointExchange

/// How many rounds and bytes a transfer takes.
@Suite struct RoundsTests {
  static let making = 3

  /// Exchanges of the fabric in each transfer of a step on three ranks; and what each rank sent in each.
  static func rounds(
    _ options: ExchangeOptions = .init(), ranksPerNode: Int = 1, rows: Int = 12, smallBytes: Int? = nil,
    inPlace: [Bool] = [false, false, false]
  ) throws -> (rounds: [Int], sizes: [[[Int]]], statistics: [LayerStatistics]) {
    let all = try SimulatedCluster(ranks: 3, ranksPerNode: ranksPerNode).run { base in
      let fabric = CountedFabric(base)
      let exchange = try ExpertExchange(
        fabric: fabric, layout: ExpertLayout(experts: 3, hidden: 8), options: options, smallBytes: smallBytes)
      #expect(fabric.sizes.count == making)
      var ends: [Int] = []
      let handle = try exchange.dispatch(
        randomBatch(rows: rows, hidden: 8, seed: UInt64(fabric.rank)),
        randomRouting(tokens: rows, topK: 2, experts: 3, notSent: 0, seed: UInt64(fabric.rank)))
      ends.append(fabric.sizes.count)
      let output = try randomBatch(rows: handle.rows.rows, hidden: 8, seed: 7)
      if inPlace[fabric.rank] { _ = try handle.outputs().elements.update(fromContentsOf: output.elements) }
      let y =
        inPlace[fabric.rank] ? try exchange.combine(handle) : try exchange.combine(output, handle)
      ends.append(fabric.sizes.count)
      let gradients = try exchange.combineBackward(y, handle)
      ends.append(fabric.sizes.count)
      _ = try exchange.dispatchBackward(gradients, handle)
      ends.append(fabric.sizes.count)
      return (ends, fabric.sizes, exchange.statistics)
    }
    for rank in all { #expect(rank.0 == all[0].0) }
    let ends = [making] + all[0].0
    return (zip(ends.dropFirst(), ends).map { $0 - $1 }, all.map(\.1), all.map(\.2))
  }

  static let formats: [WireFormat] = [.fp32, .bf16, .int4, try! .rotated(bits: 3), try! .entropy(bits: 2)]

  @Test(arguments: formats, [ExchangeOptions.Copies.perExpert, .perRank])
  func smallBodiesTravelWithTheirAnnouncements(wire: WireFormat, copies: ExchangeOptions.Copies) throws {
    for rows in [0, 12] {
      #expect(try Self.rounds(.init(copies: copies, wire: .init(wire)), rows: rows).rounds == [2, 2, 2, 2])
    }
  }

  /// Only a dispatch must be told first what comes.
  @Test(arguments: formats)
  func largeBodiesMoveAtOnceWhereTheirRowsAreExpected(wire: WireFormat) throws {
    for ranksPerNode in 1...2 {
      let found = try Self.rounds(.init(wire: .init(wire)), ranksPerNode: ranksPerNode, smallBytes: 0)
      #expect(found.rounds == [4, 3, 3, 3], "\(ranksPerNode) ranks a node")
    }
  }

  @Test(arguments: formats)
  func withinANodeNoBodyMoves(wire: WireFormat) throws {
    for (ranksPerNode, smallBytes) in [(2, nil), (3, nil), (3, 0)] {
      let found = try Self.rounds(.init(wire: .init(wire)), ranksPerNode: ranksPerNode, smallBytes: smallBytes)
      // Plain rows are written where they belong, which a dispatch must know first.
      #expect(found.rounds == [wire == .fp32 ? 3 : 2, 2, 2, 2])
    }
  }

  /// Some outputs can be read where they lie and some cannot: places are told once that is known.
  @Test func outputsInTheirHandlesAndOthersCostARound() throws {
    for inPlace in [[true, true, true], [false, false, false]] {
      #expect(try Self.rounds(ranksPerNode: 3, smallBytes: 0, inPlace: inPlace).rounds == [3, 2, 2, 2])
    }
    #expect(try Self.rounds(ranksPerNode: 3, smallBytes: 0, inPlace: [true, false, true]).rounds == [3, 3, 2, 2])
    #expect(try Self.rounds(ranksPerNode: 2, smallBytes: 0, inPlace: [true, false, false]).rounds == [4, 4, 3, 3])
  }

  /// Every byte that leaves a rank, votes apart.
  @Test(arguments: formats, [nil, 0, 100])
  func bytesAreCountedExactly(wire: WireFormat, smallBytes: Int?) throws {
    for copies in [ExchangeOptions.Copies.perExpert, .perRank] {
      let found = try Self.rounds(.init(copies: copies, wire: .init(wire)), smallBytes: smallBytes)
      let vote = SealedRecord.size(of: 16)
      for rank in 0..<3 {
        let sent = found.sizes[rank].dropFirst(Self.making).flatMap { sizes in
          (0..<3).compactMap { $0 == rank || sizes.allSatisfy { $0 == vote } ? nil : sizes[$0] }
        }
        #expect(found.statistics[rank].wireBytes == sent.reduce(0, +))
      }
    }
  }

  /// Rank 0 sends a row to rank 1 and all others to rank 2; of these the announcement says that they come, and how many.
  @Test func aSmallBodyDoesNotWaitForALargeOne() throws {
    func step(_ smallBytes: Int) throws -> [(StepResult, [[Int]])] {
      try SimulatedCluster(ranks: 3).run { base in
        let fabric = CountedFabric(base)
        let exchange = try ExpertExchange(
          fabric: fabric, layout: ExpertLayout(experts: 3, hidden: 8), smallBytes: smallBytes)
        let rows = fabric.rank == 1 ? 0 : 40
        let routing = try Routing(
          topkIndices: (0..<rows).map { $0 == 3 ? 1 : 2 }, topkWeights: (0..<rows).map { Float($0) }, topK: 1,
          experts: 3)
        let result = try trainingStep(
          exchange, tokens: randomBatch(rows: rows, hidden: 8, seed: UInt64(fabric.rank)), routing: routing,
          dy: randomBatch(rows: rows, hidden: 8, seed: 5))
        return (result, fabric.sizes)
      }
    }
    let (some, none) = (try step(40), try step(0))
    for (one, other) in zip(some, none) { #expect(one.0.isBitwiseEqual(to: other.0)) }
    let (announced, alone) = (some[0].1[Self.making], none[0].1[Self.making])
    #expect(announced[1] == alone[1] + 32 && announced[2] == alone[2])
  }

  /// A rank that lacks the memory for what it gets says so when others count on it: nobody hangs, and it is named.
  @Test(arguments: [16_384, 0], 1...3)
  func aRankWithoutRoomIsNamed(smallBytes: Int, ranksPerNode: Int) {
    let thrown = errors(ranksPerNode: ranksPerNode) { fabric in
      let exchange = try ExpertExchange(
        fabric: fabric, layout: ExpertLayout(experts: 3, hidden: 8),
        options: .init(capacityBytes: fabric.rank == 1 ? 120_000 : .max), smallBytes: smallBytes)
      func dispatch(rows: Int) throws {
        // All go to rank 1, and of rank 1 none.
        let count = fabric.rank == 1 ? 0 : rows
        let routing = try Routing(
          topkIndices: Array(repeating: 1, count: count), topkWeights: Array(repeating: 1, count: count), topK: 1,
          experts: 3)
        let handle = try exchange.dispatch(randomBatch(rows: count, hidden: 8, seed: 1), routing)
        _ = try exchange.combine(handle.rows, handle)
      }
      do { try dispatch(rows: smallBytes == 0 ? 5000 : 510) } catch {
        try dispatch(rows: 2)
        throw error
      }
    }
    #expect(thrown.count == 3)
    for error in thrown {
      #expect(error.code == .outOfMemory && error.rank == 1 && error == thrown[0])
    }
  }
}
