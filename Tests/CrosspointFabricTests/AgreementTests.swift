import CrosspointCore
import CrosspointFabric
import CrosspointTestSupport
import Testing

/// What one rank knows becomes what all know, the same on every rank, whatever byte is damaged on the way.
struct AgreementTests {
  private static func failure(_ rank: Int) -> CrosspointError {
    CrosspointError(.file, operation: "metrics", argument: "metrics", "no space left for rank \(rank)")
  }

  @Test(arguments: 1..<5)
  func theLowestFailingRankIsNamedOnEveryRankAndTheRanksGoOn(ranks: Int) throws {
    for failing in 1..<(1 << ranks) {
      let errors = try SimulatedCluster(ranks: ranks).run { fabric in
        let agreement = Agreement(fabric: fabric)
        try agreement.settle(nil, operation: "before")
        var thrown: CrosspointError?
        do throws(CrosspointError) {
          try agreement.settle(failing >> fabric.rank & 1 == 1 ? Self.failure(fabric.rank) : nil, operation: "vote")
        } catch { thrown = error }
        try agreement.settle(nil, operation: "after")
        return thrown
      }
      let lowest = failing.trailingZeroBitCount
      for error in errors {
        #expect(error?.isAgreed == true)
        #expect(error == errors[0] && error?.rank == lowest && error?.message == Self.failure(lowest).message)
      }
    }
  }

  @Test func theCauseIsNotTheErrorOfARankThatOnlyHeardOfIt() throws {
    let errors = try SimulatedCluster(ranks: 3).run { fabric in
      let heard = CrosspointError(.refusedElsewhere, operation: "route", argument: "logits", "see the others")
      return fabric.cause(of: fabric.rank == 2 ? Self.failure(2) : heard, operation: "route")
    }
    #expect(errors == Array(repeating: Self.failure(2).on(rank: 2), count: 3).map(\.agreed))
  }

  /// Every byte of every block of the exchanges of a vote, from every rank to every other.
  @Test(arguments: [nil, 0, 1, 2])
  func noDamagedByteOfAVoteChangesWhatAnyRankSees(failing: Int?) throws {
    try expectTheSameWhateverByteIsDamaged(ranks: 3) { fabric in
      try Agreement(fabric: fabric).settle(
        failing == fabric.rank ? Self.failure(fabric.rank) : nil, operation: "vote")
      return []
    }
  }

  @Test(arguments: [false, true])
  func noDamagedByteOfOptionsChangesWhatAnyRankSees(differ: Bool) throws {
    try expectTheSameWhateverByteIsDamaged(ranks: 3) { fabric in
      try fabric.requireEqual(
        [("wire", "bf16"), ("steps", differ && fabric.rank == 1 ? "30" : "300")], operation: "options")
      return []
    }
  }

  @Test func noDamagedByteOfASmallSumChangesIt() throws {
    try expectTheSameWhateverByteIsDamaged(ranks: 2) { fabric in
      var values = [Double(fabric.rank), 0.25, 3]
      try values.withUnsafeMutableBufferPointer { values throws(CrosspointError) in
        try fabric.allreduce(values, operation: "sum")
      }
      return values.map(\.bitPattern)
    }
  }

  /// Sums and blocks too large to travel twice: each of them in turn has one damaged byte, on one of its ways.
  @Test(arguments: 0..<3) func aDamagedByteOfLargeBlocksIsRefusedByEveryRank(_ kind: Int) throws {
    let body: @Sendable (any Fabric) throws -> [UInt64] = { fabric in
      var values = (0..<1800).map { Double($0 + fabric.rank) }
      let all = UnsafeMutableRawBufferPointer.allocate(byteCount: 3 * 8 * 1800, alignment: 8)
      defer { all.deallocate() }
      try values.withUnsafeMutableBufferPointer { values throws(CrosspointError) in
        switch kind {
        case 0: try fabric.allreduce(values, operation: "sum")
        case 1: try fabric.broadcast(UnsafeMutableRawBufferPointer(values), from: 0, operation: "root")
        default: try fabric.allgather(UnsafeRawBufferPointer(values), into: all, operation: "gather")
        }
      }
      return values.map(\.bitPattern)
    }
    // Exchanges, and bytes of a block, its checksum behind it.
    let (exchanges, bytes) = [(2, 600 * 8 + 8), (1, 1800 * 8 + 8), (1, 1800 * 8 + 8)][kind]
    for exchange in 0..<exchanges {
      for offset in Array(stride(from: 0, to: bytes, by: 331)) + (bytes - 9..<bytes) {
        let fault = Fault.flippedByte(from: 0, to: 2, exchange: exchange, offset: offset)
        let found = errors(SimulatedCluster(ranks: 3, deadline: .seconds(10), faults: [fault]).results(body))
        for error in found {
          #expect(error?.code == .corruptFrame && error?.rank == 0 && error?.isAgreed == true, "\(fault): \(found)")
        }
      }
    }
  }

  /// Runs `body` once as it is, then with each byte of each block of each exchange damaged in turn.
  private func expectTheSameWhateverByteIsDamaged(
    ranks: Int, _ body: @escaping @Sendable (any Fabric) throws -> [UInt64]
  ) throws {
    let sizes = try SimulatedCluster(ranks: ranks).run { fabric in
      let counted = CountedFabric(fabric)
      _ = try? body(counted)
      return counted.sizes
    }
    func outcomes(_ faults: [Fault]) -> [Outcome] {
      SimulatedCluster(ranks: ranks, deadline: .seconds(10), faults: faults).results(body).map {
        switch $0 {
        case .success(let values): .returned(values)
        case .failure(let error): .threw("\(error)")
        }
      }
    }
    let expected = outcomes([])
    var tried = 0
    for (sender, exchanges) in sizes.enumerated() {
      for (exchange, blocks) in exchanges.enumerated() {
        for (receiver, bytes) in blocks.enumerated() where receiver != sender {
          for offset in 0..<bytes {
            let fault = Fault.flippedByte(from: sender, to: receiver, exchange: exchange, offset: offset)
            #expect(outcomes([fault]) == expected, "\(fault)")
            tried += 1
          }
        }
      }
    }
    #expect(tried > 0)
  }

  private enum Outcome: Equatable {
    case returned([UInt64])
    case threw(String)
  }

  @Test func aRecordDamagedBeyondRepairIsRefusedByItsReceiver() throws {
    let faults = [3, 30].map { Fault.flippedByte(from: 0, to: 1, exchange: 0, offset: $0) }
    let results = errors(
      SimulatedCluster(ranks: 2, deadline: .seconds(5), faults: faults).results { fabric in
        try Agreement(fabric: fabric).settle(nil, operation: "vote")
      })
    #expect(results[0] == nil)
    #expect(results[1]?.code == .corruptFrame && results[1]?.rank == 0 && results[1]?.isAgreed == false)
  }

  @Test func bytesFromTheRootThatComeDamagedAreRefusedOnEveryRank() throws {
    // Exchanges: whether the root has them, how many they are, the bytes, whether all have them.
    let fault = Fault.flippedByte(from: 0, to: 2, exchange: 2, offset: 4321)
    let results = errors(
      SimulatedCluster(ranks: 3, faults: [fault]).results { fabric in
        try fabric.shareFromRoot(operation: "data") { Array(repeating: 7, count: 5000) }
      })
    for error in results {
      #expect(error?.code == .corruptFrame && error?.rank == 0 && error?.isAgreed == true)
    }
  }

  @Test func optionsOfAnyLengthAreComparedAndTheFirstDifferenceIsNamed() throws {
    let long = String(repeating: "x", count: 5000)
    for (key, odd, message) in [
      ("steps", [("data", long), ("steps", "30")], "30 on rank 2, 300 on rank 0: every rank needs the same"),
      ("clip", [("data", long), ("steps", "300"), ("clip", "1")], "1 on rank 2, nothing on rank 0: every rank"),
      ("steps", [("data", long)], "nothing on rank 2, 300 on rank 0"),
    ] {
      let results = errors(
        SimulatedCluster(ranks: 4).results { fabric in
          try fabric.requireEqual(
            fabric.rank == 2 ? odd.map { (key: $0.0, value: $0.1) } : [("data", long), ("steps", "300")],
            operation: "options")
        })
      for error in results {
        #expect(error?.code == .ranksDisagree && error?.rank == 2 && error?.argument == key)
        #expect(error?.isAgreed == true && error?.message.contains(message) == true, "\(String(describing: error))")
      }
    }
  }

  @Test func whatTheRootAloneThrowsIsThrownOnEveryRank() {
    let results = errors(
      SimulatedCluster(ranks: 3).results { fabric in
        try fabric.onRoot(operation: "summary") { () throws(CrosspointError) in throw Self.failure(0) }
      })
    #expect(results == Array(repeating: Self.failure(0).on(rank: 0).agreed, count: 3))
  }
}
