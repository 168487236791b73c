import CrosspointCore
import CrosspointRouting
import CrosspointTokens

/// What one dispatch leaves behind for its combine and its backward pass: the received rows, and where their outputs return to.
///
/// Use a handle once, in the order `dispatch → combine → combineBackward → dispatchBackward` (the last two only when
/// training), with the exchange that made it. Dropping the last reference gives its buffers back to the exchange.
public final class DispatchHandle {
  /// The calls that a handle sees, in order.
  enum Stage: String {
    /// It serves no dispatch, and has no buffers.
    case idle
    case dispatched
    case combined
    case combineBackwarded = "back through combine"
    case finished
    /// What came with its last transfer is not to be used.
    case spoiled

    init(after kind: TransferKind) {
      switch kind {
      case .dispatch: self = .dispatched
      case .combine: self = .combined
      case .combineBackward: self = .combineBackwarded
      case .dispatchBackward: self = .finished
      }
    }
  }

  /// `[rows × hidden]`: rows for this rank's experts, grouped by local expert, within an expert by source rank. With
  /// shared copies, a row that serves several of them stands here once for each.
  @exclusivity(unchecked) public internal(set) var rows: TokenBatch
  /// `[local experts]`: rows of each of this rank's experts, in the order of ``rows``.
  @exclusivity(unchecked) public internal(set) var rowsPerExpert: [Int] = []
  /// `[T × K]`: ∂L/∂topkWeights; empty until it is filled by `combineBackward`, or by `dispatchBackward` with shared copies; 0 where a
  /// choice was not sent.
  @exclusivity(unchecked) public internal(set) var topkWeightGradients: [Float] = []

  package var hasWeightGradients: Bool { topkWeightGradients.count == routing.topkIndices.count }

  /// `[rows × hidden]`, in the order of ``rows``: where experts write their outputs, so that ``ExpertExchange/combine(_:meanwhile:)``
  /// need not copy them. Uninitialised at first.
  ///
  /// The batch is a view of the handle's memory. Other ranks of the node read it during `combine` and `combineBackward`: leave
  /// it unchanged until the latter has returned, which ends it.
  /// - Throws: `outOfMemory`, on this rank alone.
  public func outputs() throws(CrosspointError) -> TokenBatch {
    try Self.fill(&holder.outputRows, like: rows, pool)
    return TokenBatch(viewing: holder.outputRows)
  }

  /// `[rows × hidden]`, in the order of ``rows``: where experts write ∂L/∂rows for
  /// ``ExpertExchange/dispatchBackward(_:meanwhile:)``. Uninitialised at first; a view of the handle's memory.
  /// - Throws: `outOfMemory`, on this rank alone.
  public func rowGradients() throws(CrosspointError) -> TokenBatch {
    try Self.fill(&holder.gradientRows, like: rows, pool)
    return TokenBatch(viewing: holder.gradientRows)
  }

  private static func fill(
    _ batch: inout TokenBatch, like rows: borrowing TokenBatch, _ pool: BufferPool
  ) throws(CrosspointError) {
    guard batch.rows != rows.rows else { return }
    batch = try TokenBatch(uninitializedRows: rows.rows, hidden: rows.hidden, type: rows.type, pool: pool)
  }

  /// Where the outputs for this rank's tokens lie, from combine to combineBackward.
  @exclusivity(unchecked) var outputsAtHome = HomeRows()
  /// What ``outputs()`` and ``rowGradients()`` show; without rows until they are asked for.
  @exclusivity(unchecked) var outputRows: TokenBatch
  @exclusivity(unchecked) var gradientRows: TokenBatch

  /// The exchange that made it.
  let owner: ObjectIdentifier
  var stage = Stage.idle
  /// Transfers of it that are under way.
  var calls = 0
  /// The sequence number of its dispatch.
  var number: UInt64 = 0
  /// What ``ExpertExchange/gradientSteps`` was at its dispatch and, from then on, at its combineBackward.
  var roundingStep: UInt64 = 0
  /// The routing that was carried out.
  @exclusivity(unchecked) var routing = Routing.none
  /// What this rank knows of the tokens that it sent.
  @exclusivity(unchecked) var source: SentTokens
  /// What it knows of the rows that it received.
  @exclusivity(unchecked) var received: ReceivedRows
  /// Which experts the rows of either side serve, with shared copies; `nil` with one per expert.
  @exclusivity(unchecked) var copies: RankCopies?
  /// With one copy per node, the dispatch that took the rows on to their experts.
  var within: DispatchHandle?
  /// Whose memory the rows' outputs and gradients are.
  var holder: DispatchHandle { within ?? self }

  private let pool: BufferPool
  private let hidden: Int
  private let type: RowType

  init(owner: ObjectIdentifier, hidden: Int, type: RowType, pool: BufferPool) {
    self.owner = owner
    self.pool = pool
    self.hidden = hidden
    self.type = type
    rows = TokenBatch(emptyOfHidden: hidden, type: type, pool: pool)
    outputRows = TokenBatch(emptyOfHidden: hidden, type: type, pool: pool)
    gradientRows = TokenBatch(emptyOfHidden: hidden, type: type, pool: pool)
    source = SentTokens(hidden: hidden, pool: pool)
    received = ReceivedRows(pool: pool)
  }

  /// Whether outputs lie in memory that stays as it is until `combineBackward`.
  func holds(_ output: borrowing TokenBatch) -> Bool {
    let base = output.view.first.base
    return base == outputRows.view.first.base || base == rows.view.first.base
  }

  /// What its rows are addressed to: the routing's experts, or with shared copies ranks or nodes.
  var destinations: Routing { copies == nil ? routing : copies!.routing }

  /// A dispatch without rows: what came is not to be used.
  func spoil() {
    rows = TokenBatch(emptyOfHidden: hidden, type: type, pool: pool)
    for expert in rowsPerExpert.indices { rowsPerExpert[expert] = 0 }
  }

  /// Gives every buffer back, so that the handle can serve another dispatch.
  func recycle() {
    topkWeightGradients.removeAll(keepingCapacity: true)
    within = nil
    rows = TokenBatch(emptyOfHidden: hidden, type: type, pool: pool)
    outputRows = TokenBatch(emptyOfHidden: hidden, type: type, pool: pool)
    gradientRows = TokenBatch(emptyOfHidden: hidden, type: type, pool: pool)
    source = SentTokens(hidden: hidden, pool: pool)
    received = ReceivedRows(pool: pool)
    stage = .idle
  }
}

/// What a rank knows of the tokens that it dispatched.
struct SentTokens: ~Copyable {
  /// Which row each routed pair became.
  var plan: RowPlan
  /// Whether rows stand for clusters.
  var isClustered = false
  /// The tokens' labels; empty where they have none.
  var labels: IndexBuffer
  /// `[rows sent]`: what both ends know a row by on its way home; empty where they know nothing.
  var rowLabels: IndexBuffer
  /// Rows that stand for clusters, with some space behind them; empty when every routed pair is a row of its own.
  var centroids: TokenBatch
  /// `[rows sent × 1]`: Σ |router weight| over each row's members; only where the wire weighs rows, else empty.
  var importances: TokenBatch
  /// The tokens and output gradients, kept only where residuals need them.
  var tokens: TokenBatch
  var outputGradients: TokenBatch
  /// Expert outputs as received, `[rows sent × hidden]`; empty where all are read where they lie.
  var outputs: TokenBatch
  /// Σ u over each row's members, for the residual's backward.
  var rowGradients: TokenBatch

  init(hidden: Int, pool: BufferPool) {
    plan = RowPlan(pool: pool)
    labels = IndexBuffer(pool: pool)
    rowLabels = IndexBuffer(pool: pool)
    centroids = TokenBatch(emptyOfHidden: hidden, pool: pool)
    importances = TokenBatch(emptyOfHidden: 1, pool: pool)
    tokens = TokenBatch(emptyOfHidden: hidden, pool: pool)
    outputGradients = TokenBatch(emptyOfHidden: hidden, pool: pool)
    outputs = TokenBatch(emptyOfHidden: hidden, pool: pool)
    rowGradients = TokenBatch(emptyOfHidden: hidden, pool: pool)
  }

  mutating func keep(_ labels: [Int32]) throws(CrosspointError) {
    try self.labels.resize(labels.count)
    self.labels.base.update(from: labels, count: labels.count)
  }

  var labelBase: UnsafePointer<Int32>? { labels.count == 0 ? nil : UnsafePointer(labels.base) }
  var rowLabelBase: UnsafePointer<Int32>? { rowLabels.count == 0 ? nil : UnsafePointer(rowLabels.base) }

  /// A token and the row that stood for it; only where residuals are kept, and not for a row of one member, which has none.
  func residual(token: Int, row: Int) -> (x: UnsafePointer<Float>, c: UnsafePointer<Float>) {
    let hidden = tokens.hidden
    return (UnsafePointer(tokens.base + token * hidden), UnsafePointer(centroids.base + row * hidden))
  }
}

/// How many rows a rank received, from whom and for which of its destinations.
struct ReceivedRows: ~Copyable {
  /// `[source ranks × local destinations]`.
  private var counts: IndexBuffer
  /// This rank's destinations.
  private var destinations = 0
  /// `[rows]`: what both ends know a row by on its way home; empty where they know nothing.
  private var labels: IndexBuffer
  /// `[rows × 1]`: what each weighs at its source, as its frame said; empty where frames of combine do not ask.
  private var weights: TokenBatch

  init(pool: BufferPool) {
    counts = IndexBuffer(pool: pool)
    labels = IndexBuffer(pool: pool)
    weights = TokenBatch(emptyOfHidden: 1, pool: pool)
  }

  var labelBase: UnsafeMutablePointer<Int32>? { labels.count == 0 ? nil : labels.base }

  var weightBase: UnsafeMutablePointer<Float>? { weights.rows == 0 ? nil : weights.base }

  /// Makes space for weights that come with the rows; 1 where none do.
  mutating func expectWeights(_ pool: BufferPool) throws(CrosspointError) {
    weights = try TokenBatch(uninitializedRows: total, hidden: 1, pool: pool)
    weights.base.update(repeating: 1, count: weights.rows)
  }

  /// Makes space for labels that come with the rows.
  mutating func expectLabels() throws(CrosspointError) {
    try labels.resize(total)
    labels.base.update(repeating: -1, count: labels.count)
  }

  /// Turns the labels that came into those of the way home.
  func nameLabels(_ all: Destinations) {
    var first = 0
    for (local, destination) in all.local.enumerated() where labels.count > 0 {
      for row in first..<first + count(of: local) {
        labels.base[row] = ExchangeMemory.label(labels.base[row], from: destination, of: all.count)
      }
      first += count(of: local)
    }
  }

  /// Takes note of what every rank has announced.
  mutating func note(
    ranks: Int, destinations: Int, _ rows: (_ source: Int, _ destination: Int) -> Int
  ) throws(CrosspointError) {
    self.destinations = destinations
    try counts.resize(ranks * destinations)
    for source in 0..<ranks {
      for destination in 0..<destinations {
        counts[source * destinations + destination] = rows(source, destination)
      }
    }
  }

  /// All rows.
  var total: Int { (0..<counts.count).reduce(0) { $0 + counts[$1] } }

  func count(_ source: Int, _ destination: Int) -> Int { counts[source * destinations + destination] }

  func count(of destination: Int) -> Int {
    stride(from: destination, to: counts.count, by: max(1, destinations)).reduce(0) { $0 + counts[$1] }
  }

  /// The rows of one source, where all rows have one destination.
  func rows(from source: Int) -> Range<Int> {
    let first = (0..<source).reduce(0) { $0 + counts[$1] }
    return first..<first + counts[source]
  }

  /// Calls `body` with where each group of a source begins: rows are ordered by destination and, within one, by source.
  func forEachGroup(from source: Int, _ body: (_ start: Int, _ rows: Int) -> Void) {
    var start = 0
    for destination in 0..<destinations {
      let earlier = (0..<source).reduce(0) { $0 + count($1, destination) }
      body(start + earlier, count(source, destination))
      start += count(of: destination)
    }
  }
}
