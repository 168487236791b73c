import CrosspointCompression
import CrosspointCore
import CrosspointTokens
import Testing

struct ExtremeCountTests {
  @Test(arguments: [Int.min, -1, 0, Int.max / 8, Int.max])
  func anExtremeCountIsRefusedWithItsValue(count: Int) {
    let initialisers: [(String, () throws -> Void)] = [
      ("hidden", { _ = try RowCodec(hidden: count, seed: 1, pool: BufferPool()) }),
      ("hidden", { _ = try PseudoRotation(hidden: count, rounds: 1, seed: 1) }),
      ("rounds", { _ = try PseudoRotation(hidden: 8, rounds: count, seed: 1) }),
      ("hidden", { _ = try CrossPolytopeHash(options: ClusterOptions(), hidden: count, seed: 1) }),
      ("functions", { _ = try CrossPolytopeHash(options: ClusterOptions(functions: count), hidden: 8, seed: 1) }),
      ("width", { _ = try CrossPolytopeHash(options: ClusterOptions(width: count), hidden: 8, seed: 1) }),
      ("refinements", { try ClusterOptions(refinements: count == 0 ? -1 : count).validate(hidden: 8) }),
      ("hidden", { _ = try TokenClusterer(options: ClusterOptions(), hidden: count, seed: 1, pool: BufferPool()) }),
      ("experts", { _ = try Compensator(kind: .identity, experts: count, hidden: 8, seed: 1) }),
      ("hidden", { _ = try Compensator(kind: .lowRank(1), experts: 8, hidden: count, seed: 1) }),
      ("rank", { _ = try Compensator(kind: .lowRank(count), experts: 8, hidden: 8, seed: 1) }),
    ]
    for (argument, make) in initialisers {
      let error = #expect(throws: CrosspointError.self, "\(argument) of \(count)", performing: make)
      #expect(error?.code == .invalidArgument && error?.argument == argument, "\(String(describing: error))")
    }
  }

  /// 2²⁰ experts with two factors of 2²⁴ floats each.
  @Test func parametersThatNoMemoryHoldsAreRefused() {
    let error = #expect(throws: CrosspointError.self) {
      try Compensator(kind: .lowRank(1 << 24), experts: 1 << 20, hidden: 1 << 24, seed: 1)
    }
    #expect(error?.code == .invalidArgument && error?.argument == "parameters")
  }
}
