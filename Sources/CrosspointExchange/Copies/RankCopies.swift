import CrosspointCore
import CrosspointRouting
import CrosspointTokens

/// What one copy of a token per rank adds to a handle: which experts each row serves, on either side.
struct RankCopies: ~Copyable {
  /// Where tokens go as ranks; the weight of a rank is the sum of its experts'.
  var routing: Routing
  /// At the source, the experts of each row sent.
  var sent: ExpertMarks
  /// At the experts, those of each row received.
  var marks: ExpertMarks
  /// Whether shares and their gradients travel as bf16.
  var roundsShares = false
  /// `[pairs]`: the row of the handle's rows that a received row's pair became.
  var places: IndexBuffer
  /// `[local experts]`: where each expert's next row goes.
  var expertStart: IndexBuffer
  /// The experts' outputs, in the order of the handle's rows, for the shares' gradients.
  var outputs: UnsafePointer<Float>?
  /// `[rows received × hidden]`: what goes home in combine, kept for ∂L/∂weights, and in dispatchBackward.
  var sums: TokenBatch
  /// `[pairs × 1]`.
  var shareGradients: TokenBatch

  /// - Parameters:
  ///   - experts: the most that a rank holds.
  ///   - routing: one whose memory is used again.
  init(experts: Int, hidden: Int, routing: Routing, pool: BufferPool) {
    self.routing = routing
    sent = ExpertMarks(experts: experts, pool: pool)
    marks = ExpertMarks(experts: experts, pool: pool)
    places = IndexBuffer(pool: pool)
    expertStart = IndexBuffer(pool: pool)
    sums = TokenBatch(emptyOfHidden: hidden, pool: pool)
    shareGradients = TokenBatch(emptyOfHidden: 1, pool: pool)
  }

  /// Gives the routing up, so that its memory is used again.
  consuming func takeRouting() -> Routing { routing }
}
