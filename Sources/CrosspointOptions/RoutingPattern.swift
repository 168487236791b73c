import CrosspointCore
import CrosspointRouting

/// Repeatable routings for benchmarks and tests: `uniform`, and the imbalance set W0 to W7 in which exchanges break.
///
/// | name | what it stresses |
/// |---|---|
/// | `uniform` | K different experts at random |
/// | `W0` balanced | every expert gets the same number of tokens, give or take one |
/// | `W1` hot expert set | four tokens of five go to an eighth of the experts |
/// | `W2` hot rank | four tokens of five go to rank 0's experts |
/// | `W3` spread | a token's experts lie on as many ranks as there are |
/// | `W4` source-ragged | rank 0 has most tokens, the last rank none |
/// | `W5` zero-expert rank | the last rank's experts get nothing |
/// | `W6` rotating | W1 whose hot set moves with every step |
/// | `zipf` | expert e is wanted in proportion to 1 / (e + 1) |
/// | `W7` burst | an eighth of the tokens, but all of them at every fourth step |
package enum RoutingPattern: String, CaseIterable, Sendable {
  case uniform
  case balanced = "W0"
  case hotExperts = "W1"
  case hotRank = "W2"
  case spread = "W3"
  case ragged = "W4"
  case emptyRank = "W5"
  case rotating = "W6"
  case burst = "W7"
  case zipf

  /// One rank's place among the others and how it knows where experts live.
  package struct Place {
    package var rank: Int
    package var rankCount: Int
    /// The experts of a rank, as the exchange's layout has them.
    package var experts: (_ rank: Int) -> Range<Int>

    package init(rank: Int, rankCount: Int, experts: @escaping (_ rank: Int) -> Range<Int>) {
      self.rank = rank
      self.rankCount = rankCount
      self.experts = experts
    }
  }

  /// How many tokens a rank has at a step when `count` is the usual number.
  package func tokens(_ count: Int, at place: Place, step: Int = 0) -> Int {
    switch self {
    case .ragged where place.rankCount > 1:
      2 * count * (place.rankCount - 1 - place.rank) / (place.rankCount - 1)
    case .burst where step % 4 != 3: count / 8
    default: count
    }
  }

  /// The routing of one rank at one step: the same for the same arguments on every machine.
  ///
  /// - Parameter tokens: the usual number of tokens per rank; see ``tokens(_:at:step:)``.
  /// - Throws: `invalidArgument` when `topK` experts cannot be chosen from `experts`.
  package func routing(
    tokens: Int, topK: Int, experts: Int, at place: Place, step: Int = 0, seed: UInt64 = 0
  ) throws(CrosspointError) -> Routing {
    guard topK > 0, topK <= experts else {
      throw CrosspointError(
        .invalidArgument, operation: "RoutingPattern", argument: "topK", "\(topK) of \(experts) experts")
    }
    let count = self.tokens(tokens, at: place, step: step)
    var generator = SplitMix64(seed: seed &+ UInt64(place.rank) << 40 &+ UInt64(step) << 20)
    generator = SplitMix64(seed: generator.next())
    var indices: [Int32] = []
    var weights: [Float] = []
    indices.reserveCapacity(count * topK)
    weights.reserveCapacity(count * topK)
    for token in 0..<count {
      let first = indices.count
      for choice in 0..<topK {
        let wanted = preferred(token, choice, topK, experts, place, step, &generator)
        var expert = Int32(wanted.lowerBound + Int(generator.next() % UInt64(wanted.count)))
        var attempts = 0
        while indices[first...].contains(expert) {
          // A range with nothing left gives way to all experts.
          attempts += 1
          let range =
            attempts > 4 * topK
            ? 0..<experts : self == .zipf ? preferred(token, choice, topK, experts, place, step, &generator) : wanted
          expert = Int32(range.lowerBound + Int(generator.next() % UInt64(range.count)))
        }
        indices.append(expert)
      }
      let shares = (0..<topK).map { _ in generator.nextUnit() + 0.125 }
      let sum = shares.reduce(0, +)
      weights.append(contentsOf: shares.map { $0 / sum })
    }
    return try Routing(topkIndices: indices, topkWeights: weights, topK: topK, experts: experts)
  }

  /// The experts that one choice of a token is drawn from; never empty.
  private func preferred(
    _ token: Int, _ choice: Int, _ topK: Int, _ experts: Int, _ place: Place, _ step: Int,
    _ generator: inout SplitMix64
  ) -> Range<Int> {
    let all = 0..<experts
    switch self {
    case .uniform, .ragged, .burst:
      return all
    case .balanced:
      let expert = (token * topK + choice + place.rank) % experts
      return expert..<(expert + 1)
    case .hotExperts, .rotating:
      let size = max(topK, experts / 8)
      let start = self == .rotating ? step * size % experts : 0
      return generator.nextUnit() < 0.8 ? start..<min(start + size, experts) : all
    case .hotRank:
      return generator.nextUnit() < 0.8 ? place.experts(0) : all
    case .spread:
      let range = place.experts((token + choice) % place.rankCount)
      return range.isEmpty ? all : range
    case .emptyRank:
      let spared = place.experts(place.rankCount - 1).lowerBound
      return spared >= topK ? 0..<spared : all
    case .zipf:
      let expert = generator.nextZipf(experts)
      return expert..<expert + 1
    }
  }
}

extension SplitMix64 {
  /// A number below `count`, n in proportion to 1 / (n + 1): a power of two that bounds n + 1 from below, a number up to
  /// twice as large, and what is too many of the larger ones rejected. No logarithm, so the same on every machine.
  fileprivate mutating func nextZipf(_ count: Int) -> Int {
    let powers = UInt64(Int.bitWidth - count.leadingZeroBitCount)
    while true {
      let least = 1 << Int(next() % powers)
      let number = least + Int(next() % UInt64(least))
      if number <= count, nextUnit() * Float(number) < Float(least) { return number - 1 }
    }
  }
}
