import CrosspointCore
import CrosspointRouting
import CrosspointTokens

/// One thing that happens to tokens before they are routed: some are left out, some are pooled, some are weighed.
///
/// A stage mirrors the exchange. ``reduce(_:_:_:)`` maps T rows to the R rows that travel and ``expand(_:)`` maps the
/// experts' R outputs back to T rows; ``expandBackward(_:)`` and ``reduceBackward(_:tokens:auxiliaryScale:)`` are their
/// exact adjoints. The caller keeps the residual connection:
///
///     y = x + expand(MoE(reduce(x)))
///
/// A token that is left out gets −0 from `expand`, the one number that leaves every x as it is, bit for bit.
///
/// The four halves of one batch are called in this order, and only then those of the next batch. A stage belongs to one
/// thread and does not communicate but through the closure of ``step(reduceCounts:)``. Only the four halves and ``name``
/// must be written; docs/stages.md shows a whole stage.
public protocol TokenStage: AnyObject {
  /// What errors and statistics call it.
  var name: String { get }
  /// Everything that makes it another stage if changed, in one line; the state of one does not fit another.
  var configuration: String { get }
  /// Whether row t of the result never depends on a token after t of the same sequence.
  var isCausal: Bool { get }
  /// Learned numbers, the same on every rank.
  var parameters: [Float] { get set }
  /// ∂L/∂``parameters``, accumulated by the backward halves. Data-parallel: reduce them over ranks like other shared
  /// gradients, step, and set them to zero.
  var gradients: [Float] { get set }
  /// What a checkpoint must hold besides parameters (controllers, quantiles), as bit patterns; the same on every rank.
  var state: [UInt64] { get }
  /// The stage's own loss of the last batch, coefficient included: a mean over this rank's rows. It is part of no
  /// activation: add it to the reported loss; its gradient comes from the backward halves.
  var auxiliaryLoss: Double { get }

  /// T rows → the R rows that travel, and what each stands for.
  /// - Throws: `invalidArgument` naming stage and value.
  func reduce(
    _ tokens: borrowing TokenBatch, _ layout: RowLayout, _ context: StageContext
  ) throws(CrosspointError) -> TokenRows

  /// R outputs → T rows to be added to the tokens. The stage keeps the outputs for as long as it needs them.
  func expand(_ outputs: consuming TokenBatch) throws(CrosspointError) -> TokenBatch

  /// The adjoint of ``expand(_:)``: `[T × d]` ∂L/∂y → `[R × d]` ∂L/∂outputs.
  func expandBackward(_ dy: borrowing TokenBatch) throws(CrosspointError) -> TokenBatch

  /// The adjoint of ``reduce(_:_:_:)``: `[R × d]` ∂L/∂rows → `[T × d]` ∂L/∂tokens, with all that comes through the
  /// stage's own parameters; not the residual connection's part.
  /// - Parameters:
  ///   - tokens: what `reduce` was given.
  ///   - auxiliaryScale: what ``auxiliaryLoss`` is multiplied by within the training loss; see
  ///     ``TopKRouter/backward(_:topkWeightGradients:auxiliaryScale:)``.
  func reduceBackward(
    _ dRows: borrowing TokenBatch, tokens: borrowing TokenBatch, auxiliaryScale: Float
  ) throws(CrosspointError) -> TokenBatch

  /// Once per optimiser step, in training only. Collective if `reduceCounts` is; stages without state make no call.
  func step(reduceCounts: CountReduction) throws(CrosspointError)

  /// Continues from a ``state``.
  /// - Throws: `checkpointMismatch` if it cannot be this stage's.
  func restore(_ state: [UInt64]) throws(CrosspointError)
}

extension TokenStage {
  public var configuration: String { name }
  public var parameters: [Float] {
    get { [] }
    set {}
  }
  public var gradients: [Float] {
    get { [] }
    set {}
  }
  public var state: [UInt64] { [] }
  public var auxiliaryLoss: Double { 0 }
  public func step(reduceCounts: CountReduction) throws(CrosspointError) {}
  public func restore(_ state: [UInt64]) throws(CrosspointError) { try expectState(state, count: 0) }

  /// An `invalidArgument` that names this stage.
  public func invalid(_ argument: String, _ message: String) -> CrosspointError {
    CrosspointError(.invalidArgument, operation: name, argument: argument, message)
  }

  /// The share that `part` is of `whole`, both summed over ranks; `nil` where there is nothing. For ``step(reduceCounts:)``.
  package func sharedRate(
    _ part: Int, of whole: Int, reduceCounts: CountReduction
  ) throws(CrosspointError) -> Double? {
    var counts = [Double(part), Double(whole)]
    try reduceCounts(&counts)
    guard counts.count == 2, counts[0] >= 0, counts[1] >= counts[0], counts[1].isFinite else {
      throw invalid("reduceCounts", "it did not return 2 sums of counts")
    }
    return counts[1] > 0 ? counts[0] / counts[1] : nil
  }

  func expectState(_ state: [UInt64], count: Int) throws(CrosspointError) {
    guard state.count == count else {
      throw CrosspointError(
        .checkpointMismatch, operation: name, argument: "state", "\(state.count) numbers where \(count) are expected")
    }
  }
}

/// Which batch a stage sees.
public struct StageContext: Sendable, Hashable {
  /// The optimiser step: choices that all ranks make alike are drawn from it.
  public var step: Int
  /// Whether this batch is learned from. In evaluation nothing that a controller counts is counted.
  public var isTraining: Bool
  /// Tells batches of one step apart (rank, micro-batch): choices made row by row are drawn from it too.
  public var batch: Int

  public init(step: Int, isTraining: Bool, batch: Int = 0) {
    self.step = step
    self.isTraining = isTraining
    self.batch = batch
  }

  /// A generator for choices that every rank must make alike in this step.
  public func sharedGenerator(seed: UInt64) -> SplitMix64 {
    var mixer = SplitMix64(seed: seed ^ (UInt64(bitPattern: Int64(step)) &* 0xD6E8_FEB8_6659_FD93))
    return SplitMix64(seed: mixer.next())
  }

  /// A generator for choices row by row, another one for each ``batch``.
  public func batchGenerator(seed: UInt64) -> SplitMix64 {
    var mixer = sharedGenerator(seed: seed)
    return SplitMix64(seed: mixer.next() ^ (UInt64(bitPattern: Int64(batch)) &* 0xA076_1D64_78BD_642F))
  }
}
