import Crosspoint

/// The deletion gate in MrT5's own form: one gate for the model, whose `g = −30 σ(−z)` is added to the attention scores of
/// every key from its block on, and whose kept tokens alone reach the experts in hard steps.
///
/// Loss `α · mean g` with α from a controller, as in the paper's code (arXiv 2410.20771). There hard deletion packs the
/// sequence; here a deleted token stays in the residual stream, nearly unseen by all others, and skips the experts [ours].
final class KeyGate {
  /// `[T]`: g of the last batch.
  private(set) var bias: UnsafePointer<Float>
  /// `[T]`: ∂L/∂g, to which every block adds.
  private(set) var biasGradients: UnsafeMutablePointer<Float>
  /// Which tokens of the last batch reach the experts.
  private(set) var keep: [Bool] = []

  private static let depth: Float = -30
  private let parameter: Parameter
  private let fabric: any Fabric
  private let options: StageOptions
  private let control: DeletionControl
  private var gate: RowGate
  private var (scored, deleted) = (0, 0)
  private var tokens: TokenBatch
  private let context: Int
  private var layout = RowLayout(sequences: 0, length: 0)
  private let pool = BufferPool()
  private let biasBuffer = FloatBuffer()
  private let gradientBuffer = FloatBuffer()

  /// What every rank holds: nothing in the other forms.
  static func parameters(_ name: String, _ shape: ModelShape) throws(CrosspointError) -> [ParameterSpecification] {
    guard shape.stages.weighsAttention else { return [] }
    let start = try RowGate(hidden: shape.width, seed: shape.stages.seed).parameters
    return [
      ParameterSpecification(
        name: name, rows: 1, columns: start.count, start: .values(start), rate: shape.stages.deletionLearningRate)
    ]
  }

  init(
    _ name: String, _ shape: ModelShape, in set: ParameterSet, fabric: any Fabric, control: DeletionControl
  ) throws(CrosspointError) {
    parameter = set[name]
    self.fabric = fabric
    self.control = control
    options = shape.stages
    context = shape.context
    gate = try RowGate(hidden: shape.width, seed: options.seed)
    tokens = try TokenBatch(rows: 0, hidden: shape.width)
    biasGradients = gradientBuffer.base
    bias = UnsafePointer(biasBuffer.base)
  }

  /// Scores the tokens that enter the block. Collective: all ranks fail together.
  /// - Returns: this rank's part of the regulariser.
  func forward(_ x: Matrix, _ pass: Pass) throws(CrosspointError) -> Double {
    if tokens.rows != x.rows { tokens = try TokenBatch(uninitializedRows: x.rows, hidden: x.columns, pool: pool) }
    tokens.base.update(from: x.base, count: x.count)
    gate.parameters = Array(parameter.value.floats)
    if layout.rows != x.rows { layout = RowLayout(sequences: x.rows / context, length: context) }
    let bad = gate.score(tokens, layout)
    let (failed, _) = try fabric.sum(bad == nil ? 0 : 1, 0, operation: "deletion")
    guard failed == 0 else {
      throw CrosspointError(
        .nonFinite, operation: "deletion", argument: "tokens",
        bad.map { "row \($0) has a score that is not finite" } ?? "other ranks have scores that are not finite")
    }
    let bias = try biasBuffer.matrix(x.rows, 1)
    let slope = try gradientBuffer.matrix(x.rows, 1)
    slope.floats.update(repeating: 0)
    self.bias = UnsafePointer(bias.base)
    biasGradients = slope.base
    var total = 0.0
    for row in 0..<x.rows {
      bias.base[row] = Self.depth * (1 - gate.share(row))
      total += Double(bias.base[row])
    }
    var generator = pass.context.sharedGenerator(seed: options.seed)
    let isHard =
      !pass.context.isTraining
      || (Double(generator.nextUnit()) < options.deletionHardProbability && pass.context.step >= options.deletionWarmup)
    let threshold = Float(pass.context.isTraining ? 0.5 : options.evaluation.deletionThreshold ?? 0.5)
    keep = (0..<x.rows).map { !isHard || gate.share($0) > threshold }
    if pass.context.isTraining {
      scored += x.rows
      for row in 0..<x.rows where gate.share(row) <= 0.5 { deleted += 1 }
    }
    return x.rows == 0 ? 0 : control.weight * total / Double(x.rows) * Double(pass.share)
  }

  /// Adds what the gate's scores mean for the tokens that entered the block, and to the gate's own gradients.
  func backward(addingTo dx: borrowing TokenBatch, _ pass: Pass) {
    let pull = tokens.rows == 0 ? 0 : Float(control.weight) * pass.share * pass.weight / Float(tokens.rows)
    let (shares, slope) = ((0..<tokens.rows).map { gate.share($0) }, biasGradients)
    gate.differentiate(tokens, into: dx) { row in
      // dg/dz = −k σ(z) σ(−z) with g = k σ(−z)
      -Self.depth * shares[row] * (1 - shares[row]) * (slope[row] + pull)
    }
    for (place, gradient) in gate.gradients.enumerated() { parameter.gradient.base[place] += gradient }
    gate.gradients = [Float](repeating: 0, count: gate.gradients.count)
  }

  /// Tokens scored in training since the last call, and those of them to be deleted.
  func takeCounts() -> (scored: Int, deleted: Int) {
    defer { (scored, deleted) = (0, 0) }
    return (scored, deleted)
  }
}
