import CrosspointCore
import CrosspointRouting
import CrosspointTokens
import Testing

@Suite("Routers refuse bad input")
struct RouterInputTests {
  private func error(_ body: () throws(CrosspointError) -> Void) -> CrosspointError? {
    do { try body() } catch { return error }
    return nil
  }

  private func expect(
    _ argument: String, _ code: CrosspointError.Code = .invalidArgument, mentions value: String = "",
    sourceLocation: SourceLocation = #_sourceLocation, _ body: () throws(CrosspointError) -> Void
  ) {
    let error = error(body)
    #expect(error?.code == code, sourceLocation: sourceLocation)
    #expect(error?.argument == argument, sourceLocation: sourceLocation)
    #expect(value.isEmpty || error?.message.contains(value) == true, sourceLocation: sourceLocation)
  }

  @Test func options() {
    let any = TopKRouter.Scoring.topKThenSoftmax
    expect("experts", mentions: "0") { () throws(CrosspointError) in
      _ = try TopKRouter(experts: 0, topK: 1, scoring: any)
    }
    expect("experts", mentions: "-3") { () throws(CrosspointError) in
      _ = try TopKRouter(experts: -3, topK: 1, scoring: any)
    }
    expect("topK", mentions: "3 of 2") { () throws(CrosspointError) in
      _ = try TopKRouter(experts: 2, topK: 3, scoring: any)
    }
    expect("topK", mentions: "0") { () throws(CrosspointError) in
      _ = try TopKRouter(experts: 2, topK: 0, scoring: any)
    }
    for bad: Float in [-0.5, .nan, .infinity] {
      expect("loadBalance", mentions: "\(bad)") { () throws(CrosspointError) in
        _ = try TopKRouter(experts: 2, topK: 1, scoring: any, loadBalance: bad)
      }
      expect("zLoss", mentions: "\(bad)") { () throws(CrosspointError) in
        _ = try TopKRouter(experts: 2, topK: 1, scoring: any, zLoss: bad)
      }
      expect("scoring", mentions: "\(bad)") { () throws(CrosspointError) in
        _ = try TopKRouter(experts: 2, topK: 1, scoring: .sigmoid(scale: bad))
      }
      expect("capacityFactor", mentions: "\(bad)") { () throws(CrosspointError) in
        _ = try TopKRouter(experts: 2, topK: 1, scoring: any, capacityFactor: Double(bad))
      }
      expect("rate", mentions: "\(bad)") { () throws(CrosspointError) in
        _ = try SelectionBias(experts: 2, rate: bad)
      }
      expect("values") { () throws(CrosspointError) in
        _ = try SelectionBias(values: bad < 0 ? [] : [0, bad])
      }
    }
    expect("capacityFactor", mentions: "0.0") { () throws(CrosspointError) in
      _ = try TopKRouter(experts: 2, topK: 1, scoring: any, capacityFactor: 0)
    }
    expect("experts") { () throws(CrosspointError) in _ = try SelectionBias(experts: 0) }
    expect("hidden", mentions: "0") { () throws(CrosspointError) in
      _ = try LinearRouter(hidden: 0, router: TopKRouter(experts: 2, topK: 1, scoring: any), seed: 1)
    }
  }

  @Test func shapes() throws {
    let router = try TopKRouter(experts: 4, topK: 2, scoring: .topKThenSoftmax)
    let decision = try router.route(logits: [1, 2, 3, 4])
    let other = try TopKRouter(experts: 4, topK: 2, scoring: .sigmoid(scale: 1))
    expect("logits", mentions: "7") { () throws(CrosspointError) in
      _ = try router.route(logits: [Float](repeating: 0, count: 7))
    }
    expect("bias", mentions: "3 values for 4") { () throws(CrosspointError) in
      _ = try router.route(logits: [1, 2, 3, 4], bias: SelectionBias(experts: 3))
    }
    expect("topkWeightGradients", mentions: "3 gradients") { () throws(CrosspointError) in
      _ = try router.backward(decision, topkWeightGradients: [1, 2, 3])
    }
    expect("decision") { () throws(CrosspointError) in _ = try other.backward(decision, topkWeightGradients: [1, 2]) }
    expect("reduceCounts") { () throws(CrosspointError) in
      _ = try router.route(logits: [1, 2, 3, 4]) { $0 = [] }
    }
    var bias = try SelectionBias(experts: 4)
    expect("tokensPerExpert", mentions: "2 counts for 4") { () throws(CrosspointError) in
      try bias.update(tokensPerExpert: [1, 2])
    }
  }

  @Test func batches() throws {
    var gate = try LinearRouter(
      hidden: 3, router: TopKRouter(experts: 4, topK: 2, scoring: .topKThenSoftmax), seed: 1)
    let tokens = try TokenBatch(rows: 2, hidden: 3)
    let decision = try gate.route(tokens)
    expect("tokens", mentions: "2 × 5") { () throws(CrosspointError) in
      _ = try gate.route(TokenBatch(rows: 2, hidden: 5))
    }
    expect("tokenGradients", mentions: "1 × 3") { () throws(CrosspointError) in
      var short = try TokenBatch(rows: 1, hidden: 3)
      try gate.backward(decision, topkWeightGradients: [0, 0, 0, 0], tokens: tokens, into: &short)
    }
    expect("logits", .nonFinite, mentions: "token 1") { () throws(CrosspointError) in
      _ = try gate.route(TokenBatch([1, 2, 3, 4, .nan, 6], hidden: 3))
    }
  }

  @Test(arguments: [Float.nan, .infinity, -.infinity])
  func logitsThatAreNotFiniteNameTheirToken(bad: Float) throws {
    let router = try TopKRouter(experts: 3, topK: 1, scoring: .softmaxThenTopK(renormalised: false))
    for token in 0..<40 {
      var logits = [Float](repeating: 0, count: 40 * 3)
      logits[token * 3 + 2] = bad
      expect("logits", .nonFinite, mentions: "token \(token) has logit \(bad) for expert 2") {
        () throws(CrosspointError) in _ = try router.route(logits: logits)
      }
    }
  }

  @Test func everyRankThrowsWhereOneRefusesItsLogits() throws {
    let router = try TopKRouter(experts: 2, topK: 1, scoring: .topKThenSoftmax)
    var sums: [Double] = []
    expect("logits", .nonFinite) { () throws(CrosspointError) in
      _ = try router.route(logits: [.nan, 0]) { sums = $0 }
    }
    #expect(sums == [0, 0, 0, 1])
    expect("logits", .refusedElsewhere, mentions: "1 other ranks") { () throws(CrosspointError) in
      _ = try router.route(logits: [1, 0]) { counts in
        for i in counts.indices { counts[i] += sums[i] }
      }
    }
  }

  @Test func theReductionsErrorPassesThrough() throws {
    let router = try TopKRouter(experts: 2, topK: 1, scoring: .topKThenSoftmax)
    let lost = CrosspointError(.rankLost, operation: "route", rank: 3, argument: "rank", "gone")
    #expect(throws: lost) {
      try router.route(logits: [1, 0]) { _ throws(CrosspointError) in throw lost }
    }
  }
}
