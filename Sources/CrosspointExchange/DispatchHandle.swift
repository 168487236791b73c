import CrosspointRouting
import CrosspointTokens

/// What one dispatch leaves behind for its combine and its backward pass: the received rows and the way home.
///
/// Use a handle once, in the order `dispatch → combine → combineBackward → dispatchBackward` (the last two only when
/// training), with the exchange that made it. Dropping the last reference gives its buffers back to the exchange.
public final class DispatchHandle {
  /// The calls that a handle sees, in order.
  enum Stage: String {
    case dispatched
    case combined
    case combineBackwarded = "back through combine"
    case finished
  }

  /// `[rows × hidden]`: rows for this rank's experts, grouped by local expert, within an expert by source rank. With one copy
  /// per rank, a row that serves several of them stands here once for each.
  public internal(set) var rows: TokenBatch
  /// `[local experts]`: rows of each of this rank's experts, in the order of ``rows``.
  public internal(set) var rowsPerExpert: [Int] = []
  /// `[T × K]`: ∂L/∂topkWeights, filled by `combineBackward`, or by `dispatchBackward` with one copy per rank; 0 where a
  /// choice was not sent.
  public internal(set) var topkWeightGradients: [Float] = []

  /// The exchange that made it.
  let owner: ObjectIdentifier
  var stage = Stage.finished
  /// What ``ExpertExchange/gradientSteps`` was at its dispatch and, from then on, at its combineBackward.
  var roundingStep: UInt64 = 0
  /// The routing that was carried out.
  var routing: Routing?
  /// What its rows are addressed to: the routing itself, or with one copy per rank that of ranks.
  var lanes = Routing.none
  /// Which row each routed pair became.
  var plan: RowPlan
  /// `[source ranks × local lanes]`: rows received, by source.
  var receivedRows: [Int] = []
  /// `[local lanes]`: rows received.
  var rowsPerLane: [Int] = []
  /// Whether its rows stand for clusters.
  var isClustered = false
  /// Rows that stand for clusters, with some room behind them; empty when every routed pair is a row of its own.
  var centroids: TokenBatch
  /// `[rows sent × 1]`: Σ |router weight| over each row's members; only where the wire weighs rows, else empty.
  var importances: TokenBatch
  /// The tokens and output gradients, kept only where residuals need them.
  var tokens: TokenBatch
  var outputGradients: TokenBatch
  /// Expert outputs as received, `[rows sent × hidden]`, for ∂L/∂weights.
  var outputs: TokenBatch
  /// Σ u over each row's members, for the residual's backward.
  var rowGradients: TokenBatch

  // One copy per rank: at the source the experts of each row sent, at the experts those of each row received.
  var sent: ExpertMarks
  var marks: ExpertMarks
  /// Whether shares and their gradients travel as bf16.
  var roundsShares = false
  /// `[pairs]`: the row of ``rows`` that a received row's pair became.
  var places: IndexBuffer
  /// `[local experts]`: where each expert's next row goes.
  var expertStart: [Int] = []
  /// `[pairs × hidden]`: the experts' outputs, for the shares' gradients.
  var pairOutputs: TokenBatch
  /// `[pairs × 1]`.
  var shareGradients: TokenBatch

  private let pool: BufferPool

  /// - Parameter experts: the most that a rank holds.
  init(owner: ObjectIdentifier, hidden: Int, experts: Int, pool: BufferPool) {
    self.owner = owner
    self.pool = pool
    plan = RowPlan(pool: pool)
    sent = ExpertMarks(experts: experts, pool: pool)
    marks = ExpertMarks(experts: experts, pool: pool)
    places = IndexBuffer(pool: pool)
    pairOutputs = TokenBatch(emptyOfHidden: hidden, pool: pool)
    shareGradients = TokenBatch(emptyOfHidden: 1, pool: pool)
    rows = TokenBatch(emptyOfHidden: hidden, pool: pool)
    centroids = TokenBatch(emptyOfHidden: hidden, pool: pool)
    importances = TokenBatch(emptyOfHidden: 1, pool: pool)
    tokens = TokenBatch(emptyOfHidden: hidden, pool: pool)
    outputGradients = TokenBatch(emptyOfHidden: hidden, pool: pool)
    outputs = TokenBatch(emptyOfHidden: hidden, pool: pool)
    rowGradients = TokenBatch(emptyOfHidden: hidden, pool: pool)
  }

  /// Number of tokens T that were dispatched here.
  var tokenCount: Int { routing?.tokens ?? 0 }

  /// Rows that arrived here, before a rank hands them to its experts.
  var rowsReceived: Int { rowsPerLane.reduce(0, +) }

  /// Those of one source, where all rows lie in one lane.
  func rows(from source: Int) -> Range<Int> {
    let first = receivedRows[..<source].reduce(0, +)
    return first..<first + receivedRows[source]
  }

  /// A token and the row that stood for it; only where residuals are kept, and not for a row of one member, which has none.
  func residual(token: Int, row: Int, hidden: Int) -> (x: UnsafePointer<Float>, c: UnsafePointer<Float>) {
    (UnsafePointer(tokens.base + token * hidden), UnsafePointer(centroids.base + row * hidden))
  }

  /// Gives every batch back, so that the handle can serve another dispatch.
  func recycle() {
    let hidden = rows.hidden
    rows = TokenBatch(emptyOfHidden: hidden, pool: pool)
    centroids = TokenBatch(emptyOfHidden: hidden, pool: pool)
    importances = TokenBatch(emptyOfHidden: 1, pool: pool)
    tokens = TokenBatch(emptyOfHidden: hidden, pool: pool)
    outputGradients = TokenBatch(emptyOfHidden: hidden, pool: pool)
    outputs = TokenBatch(emptyOfHidden: hidden, pool: pool)
    rowGradients = TokenBatch(emptyOfHidden: hidden, pool: pool)
    pairOutputs = TokenBatch(emptyOfHidden: hidden, pool: pool)
    shareGradients = TokenBatch(emptyOfHidden: 1, pool: pool)
    routing = nil
    isClustered = false
    stage = .finished
  }
}
