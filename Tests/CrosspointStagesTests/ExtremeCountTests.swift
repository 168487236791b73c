import CrosspointCore
import CrosspointExchange
import CrosspointRouting
import CrosspointStages
import CrosspointTokens
import Testing

/// Counts at the ends of what there is, given to every public initialiser that throws.
struct ExtremeCountTests {
  private static let extremes = [Int.min, -1, 0, Int.max / 8, Int.max - 1, Int.max]

  private static let initialisers: [(name: String, argument: String, make: @Sendable (Int) throws -> Void)] = [
    ("ExpertLayout", "experts", { _ = try ExpertLayout(experts: $0, hidden: 8) }),
    ("ExpertLayout", "hidden", { _ = try ExpertLayout(experts: 8, hidden: $0) }),
    ("Routing", "experts", { _ = try Routing(topkIndices: [], topkWeights: [], topK: 1, experts: $0) }),
    ("Routing", "topK", { _ = try Routing(topkIndices: [], topkWeights: [], topK: $0, experts: 8) }),
    ("TopKRouter", "experts", { _ = try TopKRouter(experts: $0, topK: 1, scoring: .topKThenSoftmax) }),
    ("TopKRouter", "topK", { _ = try TopKRouter(experts: 8, topK: $0, scoring: .topKThenSoftmax) }),
    ("SelectionBias", "experts", { _ = try SelectionBias(experts: $0) }),
    (
      "LinearRouter", "hidden",
      {
        let router = try TopKRouter(experts: 8, topK: 1, scoring: .topKThenSoftmax)
        _ = try LinearRouter(hidden: $0, router: router, seed: 1)
      }
    ),
    ("RowGate", "hidden", { _ = try RowGate(hidden: $0, seed: 1) }),
    ("DeletionGate", "hidden", { _ = try DeletionGate(hidden: $0, options: DeletionOptions(rule: .fixed(rate: 0.5))) }),
  ]

  @Test(arguments: Self.initialisers)
  func anExtremeCountIsRefusedWithItsValue(
    _ initialiser: (name: String, argument: String, make: @Sendable (Int) throws -> Void)
  ) {
    for count in Self.extremes {
      let error = #expect(throws: CrosspointError.self, "\(initialiser.name) of \(count)") {
        try initialiser.make(count)
      }
      #expect(
        error?.code == .invalidArgument && error?.argument == initialiser.argument, "\(String(describing: error))")
      #expect(error?.message.contains("\(count)") == true, "\(String(describing: error))")
    }
  }

  @Test(arguments: [[Int.max], [Int.max, Int.max], [1, Int(Int32.max)], [-1]])
  func extremeLengthsOfSequencesAreRefused(lengths: [Int]) {
    let error = #expect(throws: CrosspointError.self) { try RowLayout(tokensPerSequence: lengths) }
    #expect(error?.code == .invalidArgument && error?.argument == "tokensPerSequence", "\(String(describing: error))")
  }

  /// No rows are a batch, if nothing overflows.
  @Test(arguments: Self.extremes, Self.extremes)
  func anExtremeShapeIsRefused(rows: Int, hidden: Int) {
    guard rows != 0 || hidden <= 0 else { return }
    let error = #expect(throws: CrosspointError.self) { try TokenBatch(rows: rows, hidden: hidden) }
    #expect(error?.code == .invalidArgument && error?.message.contains("\(rows)") == true)
  }
}
