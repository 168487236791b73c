import CrosspointCore
import CrosspointRouting
import CrosspointTokens

/// Leaves rows out of the expert branch: they are not sent, and y = x for them, bit for bit.
///
/// With a learned gate, s = σ(z) z = w·n + b of the normalised token n:
///
///     soft   y = x + s · MoE(x), every row travels
///     hard   y = x + 1[z > 0] · s · MoE(x)
///     loss   α · mean over rows of g,  g = −30 σ(−z)
///
/// The gate's form, its regulariser and the controller of α are MrT5's (arXiv 2410.20771); that it weighs the experts'
/// branch, since a feed-forward has no keys to mask, is ours. Padding never travels. Rows keep their order.
public final class DeletionGate: TokenStage {
  public let name: String
  public let isCausal = true
  package let options: DeletionOptions
  /// Floats per row.
  package let hidden: Int
  /// Which rows of the next batch are kept, padding aside; only with the rule `supplied`. Taken by ``reduce(_:_:_:)``.
  public var keep: [Bool]?
  public private(set) var auxiliaryLoss = 0.0
  /// Whether the last batch was hard.
  package private(set) var isHard = true
  package internal(set) var controller: RateController?
  /// α where the caller moves it: set it before a batch.
  public var suppliedWeight = 0.0

  /// k of the paper: what full deletion adds to g.
  static let depth = -30.0
  var gate: RowGate?
  /// Rows scored in training since the last step, and those of them to be deleted, soft steps included.
  var (scored, deleted) = (0, 0)
  /// The optimiser step of the last batch in training.
  var lastStep = 0
  private var selection = RowSelection()
  /// T, padding included.
  private var rows = 0
  private var evaluationLogit: Float = 0
  /// Rows of the last batch that are no padding.
  private var live = 0
  /// `[R]`: s of each row that travels; empty without a learned gate.
  private var shares: [Float] = []
  /// `[T]`: ∂L/∂s, 0 where nothing travelled.
  private var dShares: [Float] = []
  /// `[R × d]`: what ``expand(_:)`` was given for the last batch, until ``expandBackward(_:)`` takes it.
  private var outputs: TokenBatch?

  /// - Throws: `invalidArgument` for a width below one, a rate, target or probability outside 0…1, a gain or α that is
  ///   negative or not finite.
  public init(hidden: Int, options: DeletionOptions, name: String = "deletion") throws(CrosspointError) {
    self.hidden = hidden
    self.options = options
    self.name = name
    try Extent.require(hidden, in: Extent.hidden, operation: "DeletionGate", argument: "hidden")
    guard options.warmUp >= 0 else { throw invalid("warmUp", "\(options.warmUp) steps; it must not be negative") }
    switch options.rule {
    case .random(let rate), .fixed(let rate): try expectShare(rate, "rate")
    case .supplied: break
    case .learned(let learning):
      try expectShare(learning.hardProbability, "hardProbability")
      switch learning.regulariser {
      case .constant(let alpha): try expectGain(alpha, "alpha")
      case .supplied: break
      case .controlled(let target, let proportional, let integral, let leastWeight):
        try expectShare(target, "target")
        try expectGain(proportional, "proportional")
        try expectGain(integral, "integral")
        guard leastWeight <= 0, leastWeight.isFinite else {
          throw invalid("leastWeight", "\(leastWeight); it must be finite and not above zero")
        }
        controller = RateController(
          target: target, proportionalGain: proportional, integralGain: integral, leastWeight: leastWeight)
      }
      gate = try RowGate(hidden: hidden, seed: options.seed)
    }
  }

  public var configuration: String { "\(name):\(options.text),width=\(hidden)" }

  /// α: what the regulariser is multiplied by in the next batch.
  package var regulariserWeight: Double {
    guard case .learned(let learning) = options.rule else { return 0 }
    return switch learning.regulariser {
    case .constant(let alpha): alpha
    case .controlled: controller?.weight ?? 0
    case .supplied: suppliedWeight
    }
  }

  /// In evaluation a row is kept iff s exceeds this; ½, as in training, unless set. Training does not see it.
  package private(set) var evaluationThreshold = 0.5

  /// Keeps more or fewer rows in evaluation than the gate learned to.
  /// - Throws: `invalidArgument` outside 0 ..< 1: a share never exceeds 1, so that would drop everything.
  public func setEvaluationThreshold(_ threshold: Double) throws(CrosspointError) {
    guard threshold >= 0, threshold < 1 else {
      throw invalid("evaluationThreshold", "\(threshold) is not in 0 ..< 1; from 1 on every row would be dropped")
    }
    evaluationThreshold = threshold
    evaluationLogit = logit(threshold)
  }

  public func reduce(
    _ tokens: borrowing TokenBatch, _ layout: RowLayout, _ context: StageContext
  ) throws(CrosspointError) -> TokenRows {
    rows = layout.rows
    try expectShape(tokens)
    dShares.removeAll(keepingCapacity: true)
    outputs = nil
    isHard = true
    let warmth = context.isTraining ? options.warmth(step: context.step) : 1
    if context.isTraining { lastStep = context.step }
    switch options.rule {
    case .learned(let learning): try chooseByGate(tokens, layout, context, learning)
    case .random(let rate):
      let rate = warmth * rate
      var generator = context.batchGenerator(seed: options.seed)
      selection.choose(of: layout) { _, _, _ in Double(generator.nextUnit()) >= rate }
    case .fixed(let rate):
      let kept = 1 - warmth * rate
      selection.choose(of: layout) { _, _, place in
        (Double(place + 1) * kept).rounded(.up) > (Double(place) * kept).rounded(.up)
      }
    case .supplied:
      guard let keep, keep.count == layout.rows else {
        throw invalid(
          "keep", "\(keep.map { "\($0.count)" } ?? "no") marks for \(layout.rows) rows; set it before each batch")
      }
      selection.choose(of: layout) { row, _, _ in keep[row] }
      self.keep = nil
    }
    return try selection.select(tokens)
  }

  public func expand(_ outputs: consuming TokenBatch) throws(CrosspointError) -> TokenBatch {
    let result = try selection.scatter(outputs, weights: shares)
    if gate != nil { self.outputs = consume outputs }
    return result
  }

  public func expandBackward(_ dy: borrowing TokenBatch) throws(CrosspointError) -> TokenBatch {
    let result = try selection.gather(dy, weights: shares)
    guard gate != nil else { return result }
    guard let outputs = outputs.take() else {
      throw CrosspointError(.handleMisuse, operation: name, argument: "dy", "expand was not called for this batch")
    }
    dShares.append(contentsOf: repeatElement(0, count: rows))
    for (place, row) in selection.kept.enumerated() {
      dShares[Int(row)] = kernels.dot(dy.base + Int(row) * hidden, outputs.base + place * hidden, hidden)
    }
    return result
  }

  public func reduceBackward(
    _ dRows: borrowing TokenBatch, tokens: borrowing TokenBatch, auxiliaryScale: Float
  ) throws(CrosspointError) -> TokenBatch {
    let dTokens = try selection.scatter(dRows)
    guard var gate = gate.take() else { return dTokens }
    defer { self.gate = gate }
    try expectShape(tokens)
    guard dShares.count == rows else {
      throw CrosspointError(.handleMisuse, operation: name, argument: "dRows", "expandBackward comes first")
    }
    let pull = live == 0 ? 0 : Float(Self.depth * regulariserWeight) * auxiliaryScale / Float(live)
    let logits = gate.logits
    gate.differentiate(tokens, into: dTokens) { row in
      let share = sigmoid(logits[row])
      return share * (1 - share) * (dShares[row] - pull)
    }
    return dTokens
  }

  /// Scores every row, counts, and chooses: all rows in a soft batch, those with z above the threshold in a hard one.
  private func chooseByGate(
    _ tokens: borrowing TokenBatch, _ layout: RowLayout, _ context: StageContext,
    _ learning: DeletionOptions.Learning
  ) throws(CrosspointError) {
    if let bad = gate!.score(tokens, layout) {
      throw CrosspointError(
        .nonFinite, operation: name, argument: "tokens", "row \(bad) has a score that is not finite")
    }
    let logits = gate!.logits
    var generator = context.sharedGenerator(seed: options.seed)
    isHard =
      context.isTraining
      ? Double(generator.nextUnit()) < learning.hardProbability && context.step >= options.warmUp
      : learning.isHardInEvaluation
    let threshold = context.isTraining ? 0 : evaluationLogit
    live = 0
    var (penalty, dropped) = (0.0, 0)
    for row in logits.indices where layout.tokensPerRow[row] > 0 {
      live += 1
      penalty += Self.depth * Double(sigmoid(-logits[row]))
      if logits[row] <= 0 { dropped += 1 }
    }
    auxiliaryLoss = live == 0 ? 0 : regulariserWeight * penalty / Double(live)
    if context.isTraining {
      scored += live
      deleted += dropped
    }
    let isHard = isHard
    selection.choose(of: layout) { row, _, _ in !isHard || logits[row] > threshold }
    shares.removeAll(keepingCapacity: true)
    for row in selection.kept { shares.append(sigmoid(logits[Int(row)])) }
  }

  private func expectShape(_ tokens: borrowing TokenBatch) throws(CrosspointError) {
    try tokens.requireFloats(operation: "DeletionGate", argument: "tokens")
    guard tokens.hidden == hidden, tokens.rows == rows else {
      throw invalid("tokens", "\(tokens.rows) × \(tokens.hidden) where \(rows) × \(hidden) is expected")
    }
  }

  private func expectShare(_ value: Double, _ argument: String) throws(CrosspointError) {
    guard value >= 0, value <= 1 else { throw invalid(argument, "\(value) is not in 0…1") }
  }

  private func expectGain(_ value: Double, _ argument: String) throws(CrosspointError) {
    guard value >= 0, value.isFinite else { throw invalid(argument, "\(value); it must be finite and not negative") }
  }
}
