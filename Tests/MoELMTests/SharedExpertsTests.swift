import Crosspoint
import CrosspointTestSupport
import Testing

@testable import MoELM

/// A tiny model with shared experts, whose ranks have more rows than a slice if they are one or two.
func sharedOptions(_ count: Int, staged: Bool = false) -> TrainingOptions {
  var options = staged ? gatedOptions(.fixed) : tinyOptions()
  options.shape.sharedExperts = count
  options.shape.context = 80
  return options
}

/// Shared experts work while the exchange is under way.
@Suite struct SharedExpertsTests {
  static let link = LinkModel(latency: .microseconds(300), bytesPerSecond: 20e6)

  @Test func slicesAreEqualAndCoverEveryRowOnce() throws {
    for rows in [0, 1, 127, 128, 129, 256, 300] {
      var slices = RowSlices(rows: rows)
      var ranges: [Range<Int>] = []
      while try slices.next({ ranges.append($0) }) {}
      #expect(ranges.flatMap { Array($0) } == Array(0..<rows))
      #expect(ranges.dropLast().allSatisfy { $0.count == RowSlices.rowsPerSlice })
      #expect(try !slices.next { _ in Issue.record("a slice of no rows") })
    }
  }

  /// A block gives what its layers give one after the other, the shared experts in one piece and before the exchange.
  @Test(arguments: [1, 2], [false, true]) func aBlockEqualsItsLayersOneAfterTheOther(count: Int, staged: Bool) throws {
    let options = sharedOptions(count, staged: staged)
    let errors = try SimulatedCluster(ranks: 2, link: Self.link).run { fabric in
      try Self.compare(options.shape, options.exchange, fabric)
    }
    for errors in errors {
      #expect(["y", "dx", "block1.up", "block1.down", "block1.gate"].allSatisfy { errors[$0] != nil })
      for (name, error) in errors { #expect(error < 1e-5, "\(name)") }
    }
  }

  /// Relative errors of a block's result and gradients against those of its layers.
  private static func compare(
    _ shape: ModelShape, _ exchange: ExchangeOptions, _ fabric: any Fabric
  ) throws -> [String: Double] {
    let (rows, width) = (2 * shape.context, shape.width)
    let local = try ExpertLayout(experts: shape.experts, hidden: width).experts(of: fabric.rank, rankCount: 2)
    let pass = Pass(context: StageContext(step: 0, isTraining: true, batch: fabric.rank), share: 0.5)
    let values = randomFloats(rows * width, seed: UInt64(fabric.rank))
    let slopes = randomFloats(rows * width, seed: 7)
    func sets() throws -> (shared: ParameterSet, experts: ParameterSet) {
      (
        try ParameterSet(Block.sharedParameters(1, shape, exchange), seed: 3),
        try ParameterSet(Block.expertParameters(1, shape, local), seed: 3)
      )
    }
    let (mine, theirs) = (try sets(), try sets())

    let x = try TokenBatch(values, hidden: width)
    let dx = try TokenBatch(slopes, hidden: width)
    let block = try Block(
      1, shape, shared: mine.shared, experts: mine.experts, fabric: fabric, options: exchange, over: .crosspoint,
      pool: BufferPool())
    _ = try block.forward(Matrix(x), pass)
    try block.backward(dx, pass)

    let y = try TokenBatch(values, hidden: width)
    let dy = try TokenBatch(slopes, hidden: width)
    let attended = try TokenBatch(rows: rows, hidden: width)
    let fed = try TokenBatch(rows: rows, hidden: width)
    let firstNorm = LayerNorm("block1.norm1", width: width, in: theirs.shared)
    let attention = Attention("block1.attention", shape, in: theirs.shared)
    let secondNorm = LayerNorm("block1.norm2", width: width, in: theirs.shared)
    let dense = FeedForward("block1", in: theirs.shared)
    let routed = try StagedExperts(
      "block1", shape, shared: theirs.shared, experts: theirs.experts, fabric: fabric, options: exchange,
      over: .crosspoint, layer: 1)
    let (hidden, active) = (FloatBuffer(), FloatBuffer())
    try firstNorm.forward(Matrix(y), into: Matrix(attended))
    try attention.forward(Matrix(attended), addingTo: Matrix(y))
    try secondNorm.forward(Matrix(y), into: Matrix(fed))
    try dense.forward(
      Matrix(fed), hidden: hidden.matrix(rows, dense.hidden), active: active.matrix(rows, dense.hidden),
      into: Matrix(y), accumulate: true)
    _ = try routed.forward(fed, addingTo: Matrix(y), pass) { false }

    let slope = try TokenBatch(rows: rows, hidden: width)
    var both = try TokenBatch(rows: rows, hidden: width)
    try routed.backward(fed, dy: dy, pass, into: Matrix(both), accumulate: false) { false }
    try dense.backward(
      Matrix(fed), hidden: hidden.matrix(rows, dense.hidden), active: active.matrix(rows, dense.hidden),
      dy: Matrix(dy), into: Matrix(slope))
    try both.add(slope)
    try secondNorm.backward(Matrix(both), addingTo: Matrix(dy))
    try attention.backward(Matrix(attended), dy: Matrix(dy), into: Matrix(slope))
    try firstNorm.backward(Matrix(slope), addingTo: Matrix(dy))

    var errors = ["y": relativeError(x.array, y.array), "dx": relativeError(dx.array, dy.array)]
    for (set, reference) in [(mine.shared, theirs.shared), (mine.experts, theirs.experts)] {
      for specification in set.specifications {
        let name = specification.name
        errors[name] = relativeError(Array(set[name].gradient.floats), Array(reference[name].gradient.floats))
      }
    }
    return errors
  }

  @Test(arguments: [false, true]) func anyRankCountFollowsTheSameCurve(staged: Bool) throws {
    let options = sharedOptions(1, staged: staged)
    let one = try lossCurve(options, SimulatedCluster(ranks: 1))
    for ranks in [2, 4, 5] {  // 4: a rank without experts; 5: without sequences, too
      #expect(relativeError(try lossCurve(options, SimulatedCluster(ranks: ranks)), one) < 1e-5, "\(ranks) ranks")
    }
  }

  /// Whenever bytes arrive, and whichever rank is late.
  @Test func timeChangesNoBit() throws {
    let options = sharedOptions(2)
    let straight = try lossCurve(options, SimulatedCluster(ranks: 2))
    for late in 0..<2 {
      let cluster = SimulatedCluster(ranks: 2, link: Self.link, faults: [.slow(late, .milliseconds(1))])
      #expect(try lossCurve(options, cluster) == straight)
    }
  }
}
