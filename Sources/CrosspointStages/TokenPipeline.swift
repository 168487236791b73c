import CrosspointCore
import CrosspointRouting
import CrosspointTokens

/// Stages one after the other, as one: one per MoE layer.
///
/// ```swift
/// let pipeline = try TokenPipeline([gate, merging], causal: true)
/// let rows = try pipeline.reduce(x, layout, context, reduceCounts: sum)    // rows.tokens are routed and dispatched
/// …
/// let y = try pipeline.expand(outputs)                                     // to be added to x
/// // backward
/// let dOutputs = try pipeline.expandBackward(dy)                           // → combineBackward … dispatchBackward → dRows
/// let dx = try pipeline.reduceBackward(dRows, tokens: x)                   // to be added to dy
/// try pipeline.step(reduceCounts: sum)                                     // once per optimiser step
/// ```
public final class TokenPipeline {
  package let stages: [any TokenStage]
  /// Tokens in and rows out of each stage since the last reset; this rank's.
  public var statistics: [StageStatistics]
  /// What each stage but the last handed to the next, kept for the backward pass.
  private let between: [RowsBox]
  /// Failed ranks of the last batch; kept for its memory.
  var failed: [Double] = [0]
  /// Shapes of the batch under way; `nil` before the first.
  private var reduced: (tokens: Int, rows: Int, hidden: Int)?

  /// - Parameter causal: whether a stage that looks at later tokens is refused.
  /// - Throws: `invalidArgument` naming the first such stage.
  public init(_ stages: [any TokenStage], causal: Bool) throws(CrosspointError) {
    if causal, let place = stages.firstIndex(where: { !$0.isCausal }) {
      throw CrosspointError(
        .invalidArgument, operation: "TokenPipeline", argument: stages[place].name,
        "stage \(place), \(stages[place].configuration), looks at later tokens and this pipeline is causal")
    }
    self.stages = stages
    statistics = stages.map { StageStatistics(name: $0.name) }
    between = stages.dropFirst().map { _ in RowsBox() }
  }

  /// The sum of the stages' own losses.
  public var auxiliaryLoss: Double { stages.reduce(0) { $0 + $1.auxiliaryLoss } }

  /// All stages in order: `[T × d]` tokens → the rows that travel. Collective if `reduceCounts` is.
  ///
  /// - Parameter reduceCounts: lets all ranks fail together: it is called once with `[1]` number (failed ranks), whether
  ///   or not this rank's batch was refused, and if one rank failed once more, with its error.
  /// - Throws: what a stage throws; with `reduceCounts` on every rank.
  public func reduce(
    _ tokens: borrowing TokenBatch, _ layout: RowLayout, _ context: StageContext,
    reduceCounts: CountReduction = { _ in }
  ) throws(CrosspointError) -> TokenRows {
    reduced = nil
    for box in between { box.rows = nil }
    var result: TokenRows?
    var failure: CrosspointError?
    do throws(CrosspointError) {
      result = try reduceLocally(tokens, layout, context)
    } catch {
      failure = error
    }
    try failTogether(failure, reduceCounts: reduceCounts)
    guard let rows = result.take() else { preconditionFailure("neither rows nor an error") }
    reduced = (tokens.rows, rows.tokens.rows, tokens.hidden)
    return rows
  }

  /// `[R × d]` outputs of the experts → `[T × d]` to be added to the tokens. Takes the outputs over.
  /// - Throws: `handleMisuse` without ``reduce(_:_:_:reduceCounts:)``, `invalidArgument` for another shape.
  public func expand(_ outputs: consuming TokenBatch) throws(CrosspointError) -> TokenBatch {
    try expect(outputs, rows: reduced?.rows, operation: "expand", argument: "outputs")
    var rows = outputs
    for stage in stages.reversed() { rows = try stage.expand(rows) }
    return rows
  }

  /// `[T × d]` ∂L/∂y → `[R × d]` ∂L/∂outputs.
  /// - Throws: as ``expand(_:)``.
  public func expandBackward(_ dy: borrowing TokenBatch) throws(CrosspointError) -> TokenBatch {
    try expect(dy, rows: reduced?.tokens, operation: "expandBackward", argument: "dy")
    guard let first = stages.first else { return try copy(dy) }
    var gradient = try first.expandBackward(dy)
    for stage in stages.dropFirst() { gradient = try stage.expandBackward(gradient) }
    return gradient
  }

  /// `[R × d]` ∂L/∂rows → `[T × d]` ∂L/∂tokens, the residual connection's part not included.
  /// - Parameters:
  ///   - tokens: what ``reduce(_:_:_:reduceCounts:)`` was given.
  ///   - auxiliaryScale: see ``TokenStage/reduceBackward(_:tokens:auxiliaryScale:)``.
  /// - Throws: as ``expand(_:)``.
  public func reduceBackward(
    _ dRows: borrowing TokenBatch, tokens: borrowing TokenBatch, auxiliaryScale: Float = 1
  ) throws(CrosspointError) -> TokenBatch {
    try expect(dRows, rows: reduced?.rows, operation: "reduceBackward", argument: "dRows")
    try expect(tokens, rows: reduced?.tokens, operation: "reduceBackward", argument: "tokens")
    guard let last = stages.last else { return try copy(dRows) }
    guard let box = between.last else {
      return try last.reduceBackward(dRows, tokens: tokens, auxiliaryScale: auxiliaryScale)
    }
    var gradient = try box.withTokens { input throws(CrosspointError) in
      try last.reduceBackward(dRows, tokens: input, auxiliaryScale: auxiliaryScale)
    }
    for place in stages.indices.dropFirst().dropLast().reversed() {
      gradient = try between[place - 1].withTokens { input throws(CrosspointError) in
        try stages[place].reduceBackward(gradient, tokens: input, auxiliaryScale: auxiliaryScale)
      }
    }
    return try stages[0].reduceBackward(gradient, tokens: tokens, auxiliaryScale: auxiliaryScale)
  }

  /// Lets controllers move. Call it once per optimiser step, in training only. Collective if `reduceCounts` is.
  /// - Parameter reduceCounts: sums over ranks; without it the ranks' controllers drift apart.
  public func step(reduceCounts: CountReduction = { _ in }) throws(CrosspointError) {
    for stage in stages { try stage.step(reduceCounts: reduceCounts) }
  }

  private func reduceLocally(
    _ tokens: borrowing TokenBatch, _ layout: RowLayout, _ context: StageContext
  ) throws(CrosspointError) -> TokenRows {
    try tokens.requireFloats(operation: "TokenPipeline", argument: "tokens")
    guard tokens.rows == layout.rows else {
      throw CrosspointError(
        .invalidArgument, operation: "TokenPipeline", argument: "layout",
        "it describes \(layout.rows) rows, the batch has \(tokens.rows)")
    }
    guard let first = stages.first else { return try TokenRows(tokens: copy(tokens), layout: layout) }
    var rows = try first.reduce(tokens, layout, context)
    statistics[0].count(layout, rows.layout)
    for place in stages.indices.dropFirst() {
      let next = try stages[place].reduce(rows.tokens, rows.layout, context)
      statistics[place].count(rows.layout, next.layout)
      between[place - 1].rows = consume rows
      rows = next
    }
    return rows
  }

  private func copy(_ batch: borrowing TokenBatch) throws(CrosspointError) -> TokenBatch {
    let copy = try TokenBatch(rows: batch.rows, hidden: batch.hidden)
    copy.base.update(from: batch.base, count: batch.rows * batch.hidden)
    return copy
  }

  private func expect(
    _ batch: borrowing TokenBatch, rows: Int?, operation: String, argument: String
  ) throws(CrosspointError) {
    guard let rows, let hidden = reduced?.hidden else {
      throw CrosspointError(
        .handleMisuse, operation: operation, argument: argument, "no batch is under way: call reduce first")
    }
    try batch.requireFloats(operation: operation, argument: argument)
    guard batch.rows == rows, batch.hidden == hidden else {
      throw CrosspointError(
        .invalidArgument, operation: operation, argument: argument,
        "\(batch.rows) × \(batch.hidden) where \(rows) × \(hidden) is expected")
    }
  }
}

/// A place for move-only rows in an array.
private final class RowsBox {
  var rows: TokenRows?

  /// The rows stay also where `body` throws: the caller may put right what was wrong and try again.
  func withTokens<R: ~Copyable>(
    _ body: (borrowing TokenBatch) throws(CrosspointError) -> R
  ) throws(CrosspointError) -> R {
    guard let held = rows.take() else { preconditionFailure("backward without forward") }
    do throws(CrosspointError) {
      let result = try body(held.tokens)
      rows = consume held
      return result
    } catch {
      rows = consume held
      throw error
    }
  }
}
