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
  /// `[T × K]`: of each slot that is sent the first of its token's on that rank, and its pair in ``sent``.
  private var leaderOfSlot: IndexBuffer
  private var pairOfSlot: IndexBuffer
  /// How shares and their gradients travel.
  var shares = PairNumbers.fp32
  /// `[pairs]`: the row of the handle's rows that a received row's pair became.
  var places: IndexBuffer
  /// `[local experts]`: where each expert's next row goes.
  private var expertStart: IndexBuffer
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
    leaderOfSlot = IndexBuffer(pool: pool)
    pairOfSlot = IndexBuffer(pool: pool)
    marks = ExpertMarks(experts: experts, pool: pool)
    places = IndexBuffer(pool: pool)
    expertStart = IndexBuffer(pool: pool)
    sums = TokenBatch(emptyOfHidden: hidden, pool: pool)
    shareGradients = TokenBatch(emptyOfHidden: 1, pool: pool)
  }

  /// Gives the routing up, so that its memory is used again.
  consuming func takeRouting() -> Routing { routing }
}

// MARK: - At the source

extension RankCopies {
  /// Marks the experts of every row of a plan, with their shares.
  mutating func mark(
    _ experts: Routing, _ plan: borrowing RowPlan, _ destinations: Destinations
  ) throws(CrosspointError) {
    try leaderOfSlot.resize(experts.topkIndices.count)
    try pairOfSlot.resize(experts.topkIndices.count)
    try sent.start(rows: plan.rows)
    var tokenStart = 0
    for (slot, expert) in experts.topkIndices.enumerated() {
      if slot == tokenStart + experts.topK { tokenStart = slot }
      leaderOfSlot[slot] = -1
      guard expert >= 0 else { continue }
      let destination = destinations.destination(of: Int(expert))
      var leader = tokenStart
      while Int(routing.topkIndices[leader]) != destination { leader += 1 }
      leaderOfSlot[slot] = leader
      // Its place there, until pairs have numbers.
      pairOfSlot[slot] = destinations.place(of: Int(expert))
      sent.mark(plan.rowOfSlot[leader], pairOfSlot[slot])
    }
    try sent.number()
    let shares = sent.weights.base
    forEachCopy { slot, leader in
      let row = plan.rowOfSlot[leader]
      let pair = sent.pair(row, pairOfSlot[slot])
      pairOfSlot[slot] = pair
      shares[pair] += experts.topkWeights[slot] / routing.topkWeights[leader] / Float(plan.counts[row])
    }
  }

  /// Calls `body` with each slot that is sent, and the one that leads its token's choices on that rank.
  private func forEachCopy(_ body: (_ slot: Int, _ leader: Int) -> Void) {
    for slot in 0..<leaderOfSlot.count where leaderOfSlot[slot] >= 0 { body(slot, leaderOfSlot[slot]) }
  }

  /// Gradients of the router's weights from those of the ranks' weights, which are kept at the slots of their leaders.
  ///
  /// - Parameters:
  ///   - shares: `[pairs]`, ∂L/∂shares.
  ///   - ofRanks: `[T × K]`, ∂L/∂W.
  /// - Returns: `[T · K × 1]`.
  func differentiate(
    _ shares: UnsafePointer<Float>, _ experts: Routing, _ plan: borrowing RowPlan, ofRanks: [Float], pool: BufferPool
  ) throws(CrosspointError) -> TokenBatch {
    // Of a token's choices on a rank, kept at the slot of its leader: two sums.
    let sums = try TokenBatch(uninitializedRows: 2 * ofRanks.count, hidden: 1, pool: pool)
    sums.elements.update(repeating: 0)
    let (means, magnitudes) = (sums.base, sums.base + ofRanks.count)
    let weights = try TokenBatch(uninitializedRows: ofRanks.count, hidden: 1, pool: pool)
    weights.elements.update(repeating: 0)
    func gradient(_ slot: Int, _ leader: Int) -> Float {
      shares[pairOfSlot[slot]] / Float(plan.counts[plan.rowOfSlot[leader]])
    }
    forEachCopy { slot, leader in
      let weight = experts.topkWeights[slot]
      means[leader] += weight / routing.topkWeights[leader] * gradient(slot, leader)
      magnitudes[leader] += weight.magnitude
    }
    forEachCopy { slot, leader in
      let own = gradient(slot, leader)
      let sign: Float = experts.topkWeights[slot] < 0 ? -1 : 1
      weights.base[slot] =
        magnitudes[leader] == 0
        ? own : sign * ofRanks[leader] + (own - sign * means[leader]) / routing.topkWeights[leader]
    }
    return weights
  }
}

// MARK: - At the experts

extension RankCopies {
  /// Decides where the copies of so many rows that arrive go, and counts them by expert.
  mutating func place(rows: Int, rowsPerExpert: inout [Int]) throws(CrosspointError) {
    try places.resize(marks.pairs)
    try expertStart.resize(rowsPerExpert.count)
    rowsPerExpert.withUnsafeMutableBufferPointer { counts in
      counts.update(repeating: 0)
      for row in 0..<rows { marks.forEachPair(of: row) { _, expert in counts[expert] += 1 } }
      var start = 0
      for (expert, count) in counts.enumerated() {
        expertStart[expert] = start
        start += count
      }
    }
    for row in 0..<rows {
      marks.forEachPair(of: row) { pair, expert in
        let place = expertStart[expert]
        expertStart[expert] = place + 1
        places[pair] = place
      }
    }
  }

  /// Calls `body` with the expert and the place of each of a row's copies.
  func forEachPlace(of row: Int, _ body: (_ expert: Int, _ place: Int) -> Void) {
    marks.forEachPair(of: row) { pair, expert in body(expert, places[pair]) }
  }

  /// Copies some of the rows, each to all its places.
  func fanOut(_ rows: borrowing TokenBatch, _ range: Range<Int>, into copies: borrowing TokenBatch) {
    for row in range {
      for pair in marks.pairs(of: row) {
        (copies.base + places[pair] * rows.hidden).update(from: rows.base + row * rows.hidden, count: rows.hidden)
      }
    }
  }

  /// Sums the copies of each row, weighted by their shares or not.
  ///
  /// - Parameters:
  ///   - kept: where the copies themselves are kept.
  ///   - check: looks at each sum.
  func sum(
    _ copies: UnsafePointer<Float>, areWeighted: Bool, keeping kept: UnsafeMutablePointer<Float>? = nil,
    into sums: borrowing TokenBatch, check: (UnsafePointer<Float>) throws(CrosspointError) -> Void
  ) throws(CrosspointError) {
    let hidden = sums.hidden
    for row in 0..<sums.rows {
      let (sum, pairs) = (sums.base + row * hidden, marks.pairs(of: row))
      if pairs.isEmpty { sum.update(repeating: 0, count: hidden) }
      for pair in pairs {
        let place = places[pair] * hidden
        // Copied while it is in the cache.
        if let kept { (kept + place).update(from: copies + place, count: hidden) }
        let weight = areWeighted ? marks.weights.base[pair] : 1
        add(copies + place, weight: weight, to: sum, isFirst: pair == pairs.lowerBound, hidden: hidden)
      }
      try check(sum)
    }
  }

  /// ∂L/∂output of each copy of some rows from that of its row; notes what the shares' gradients are, ⟨gradient, output⟩.
  func differentiate(
    _ rows: borrowing TokenBatch, _ range: Range<Int>, into gradients: UnsafeMutablePointer<Float>
  ) {
    let hidden = rows.hidden
    for row in range {
      let gradient = rows.base + row * hidden
      for pair in marks.pairs(of: row) {
        let place = places[pair] * hidden
        kernels.scale(gradients + place, marks.weights.base[pair], gradient, hidden)
        shareGradients.base[pair] = kernels.dot(gradient, outputs! + place, hidden)
      }
    }
  }
}
