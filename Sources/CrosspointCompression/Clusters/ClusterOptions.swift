import CrosspointCore

/// How tokens are grouped: cross-polytope functions over one pseudo-rotation, concatenated.
///
/// More functions make more buckets: more rows travel, and each is nearer to its tokens.
///
/// ```swift
/// ExchangeOptions(compression: .lshMoE)                                     // six functions, as published
/// ExchangeOptions(compression: .crossPolytope(.init(functions: 2, rate: 0.12)))
/// ```
public struct ClusterOptions: Hashable, Sendable {
  package var functions: Int
  package var width: Int?
  /// Rounds of the pseudo-rotation: two, as FALCONN recommends; ``lshMoE`` has three.
  package let rounds: Int
  package var centred: Bool
  package var rate: Float?
  package var refinements: Int

  /// - Parameters:
  ///   - functions: hash functions; tokens share a bucket when they agree on all of them.
  ///   - width: rotated coordinates that each function looks at; `nil`: all for one function, for several the largest power
  ///     of two of which there are enough.
  ///   - centred: whether the mean of an expert's tokens on this rank (of at most 256 evenly spaced ones) is subtracted
  ///     before hashing. Without it, tokens with a strong common mean collapse into few buckets with a large residual.
  ///   - rate: the most clusters per token of an expert, in (0, 1]; `nil`: as many as there are buckets. Rows sent then stay
  ///     below this share however the tokens change in training (ours; the paper has buckets only).
  ///   - refinements: passes of Lloyd's algorithm after hashing: a smaller residual at the same rate (ours).
  public init(
    functions: Int = 1, width: Int? = nil, centred: Bool = true, rate: Float? = nil, refinements: Int = 0
  ) {
    self.init(
      functions: functions, width: width, rounds: 2, centred: centred, rate: rate, refinements: refinements)
  }

  private init(functions: Int, width: Int?, rounds: Int, centred: Bool, rate: Float?, refinements: Int) {
    self.functions = functions
    self.width = width
    self.rounds = rounds
    self.centred = centred
    self.rate = rate
    self.refinements = refinements
  }

  /// LSH-MoE as published (arXiv 2411.08446, Algorithm 1 and section 4): six functions, tokens as they are.
  package static let lshMoE = ClusterOptions(
    functions: 6, width: nil, rounds: 3, centred: false, rate: nil, refinements: 0)

  /// The width in use: ``width`` if given; else all of `hidden` for one function, and for several the largest power of two
  /// of which there are enough.
  package func resolvedWidth(hidden: Int) -> Int {
    if let width { return width }
    if functions == 1 { return hidden }
    return functions > 0 && hidden >= functions ? (hidden / functions).largestPowerOfTwoWithin : 1
  }

  /// - Throws: `invalidArgument` unless all functions fit side by side into `hidden` coordinates.
  package func validate(hidden: Int) throws(CrosspointError) {
    func invalid(_ argument: String, _ message: String) -> CrosspointError {
      CrosspointError(.invalidArgument, operation: "ClusterOptions", argument: argument, message)
    }
    try Extent.require(hidden, in: Extent.hidden, operation: "ClusterOptions", argument: "hidden")
    guard functions >= 1, functions <= hidden else {
      throw invalid("functions", "\(functions) is not in 1…\(hidden), the hidden size")
    }
    guard rate.map({ $0 > 0 && $0 <= 1 }) ?? true else { throw invalid("rate", "\(rate ?? 0) is not in (0, 1]") }
    guard (0...100).contains(refinements) else { throw invalid("refinements", "\(refinements) is not in 0…100") }
    let width = resolvedWidth(hidden: hidden)
    let most = hidden / functions
    guard width >= 1, width <= most else {
      throw invalid("width", "\(width) is not in 1…\(most), which \(functions) functions have in hidden \(hidden)")
    }
  }

  func mostClusters(of tokens: Int) -> Int {
    rate.map { max(1, Int((Float(tokens) * $0).rounded(.down))) } ?? tokens
  }

  /// Whether distances are needed beside hashes.
  var needsDistances: Bool { rate != nil || refinements > 0 }
}
