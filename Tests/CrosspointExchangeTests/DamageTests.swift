import CrosspointCore
import CrosspointFabric
import CrosspointTestSupport
import CrosspointTokens
import Testing

@testable import CrosspointExchange

/// One byte of one message is damaged: the ranks end alike, with the same bits or the same error.
@Suite struct DamageTests {
  enum Outcome: Equatable, Sendable {
    case returned([UInt32])
    case threw(CrosspointError)
  }

  /// Makes an exchange and does a step of training; rank `bad` hands in a NaN.
  private static func step(_ fabric: any Fabric, bad: Int?, _ smallBytes: Int?) throws -> [UInt32] {
    let exchange = try ExpertExchange(
      fabric: fabric, layout: ExpertLayout(experts: 3, hidden: 4), smallBytes: smallBytes)
    let tokens = try randomBatch(rows: 3, hidden: 4, seed: UInt64(fabric.rank))
    if fabric.rank == bad { tokens.elements[5] = .nan }
    let step = try trainingStep(
      exchange, tokens: tokens, routing: randomRouting(tokens: 3, topK: 2, experts: 3, notSent: 0, seed: 1),
      dy: randomBatch(rows: 3, hidden: 4, seed: 2))
    return (step.y + step.tokenGradients).map(\.bitPattern)
  }

  private func outcomes(_ faults: [Fault], bad: Int?, _ smallBytes: Int?) -> [Outcome] {
    SimulatedCluster(ranks: 2, deadline: .seconds(10), faults: faults).results {
      try Self.step($0, bad: bad, smallBytes)
    }.map {
      switch $0 {
      case .success(let bits): .returned(bits)
      case .failure(let error): .threw(error as! CrosspointError)
      }
    }
  }

  @Test(arguments: [(nil, nil), (nil, 0), (1, nil)])
  func aDamagedByteAnywhereEndsTheSameOnEveryRank(bad: Int?, smallBytes: Int?) throws {
    // What rank 0 sends to rank 1 in each exchange, and the other way round.
    let sizes = try SimulatedCluster(ranks: 2).run { fabric in
      let counted = CountedFabric(fabric)
      _ = try? Self.step(counted, bad: bad, smallBytes)
      return counted.sizes.map { $0[1 - fabric.rank] }
    }
    let expected = outcomes([], bad: bad, smallBytes)
    var (repaired, refused) = (0, 0)
    for sender in 0..<2 {
      for (exchange, bytes) in sizes[sender].enumerated() {
        for offset in 0..<bytes {
          let fault = Fault.flippedByte(from: sender, to: 1 - sender, exchange: exchange, offset: offset)
          let found = outcomes([fault], bad: bad, smallBytes)
          if found == expected {
            repaired += 1
            continue
          }
          refused += 1
          guard case .threw(let error) = found[0] else {
            Issue.record("\(fault): \(found)")
            continue
          }
          #expect(found[1] == found[0], "\(fault)")
          #expect(error.isAgreed && error.code == .corruptFrame && error.rank == sender, "\(fault): \(error)")
        }
      }
    }
    // Where a rank says at once that it has failed, nobody looks at a body.
    #expect(repaired > 500 && (bad == nil ? refused > 100 : refused == 0), "\(repaired) repaired, \(refused) refused")
  }
}
