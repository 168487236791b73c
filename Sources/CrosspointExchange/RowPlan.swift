import CrosspointCompression
import CrosspointCore
import CrosspointRouting
import CrosspointTokens

/// Which row each routed (token, choice) pair becomes, ordered by expert: the index arithmetic of a dispatch.
///
/// *Members* are the routed pairs of an expert in token order; *rows* are what is sent for them: one each without
/// clustering, one per cluster with it. A *slot* is `token · K + choice`.
struct RowPlan: ~Copyable {
  /// `[members]`: token of each member, grouped by expert.
  var memberTokens: IndexBuffer
  /// `[members]`: slot of each member.
  var memberSlots: IndexBuffer
  /// `[members]`: row of each member, counted within its expert.
  var memberRows: IndexBuffer
  /// `[E + 1]`: where each expert's members begin.
  var memberStart: IndexBuffer
  /// `[E + 1]`: where each expert's rows begin.
  var rowStart: IndexBuffer
  /// `[T · K]`: row of each slot, counted over all experts; −1 where nothing was sent.
  var rowOfSlot: IndexBuffer
  /// `[rows]`: the slot that first joined each row.
  var firstSlot: IndexBuffer
  /// `[rows]`: members of each row.
  var counts: IndexBuffer

  private var experts: Int { rowStart.count - 1 }
  var members: Int { memberTokens.count }
  var rows: Int { rowStart.count == 0 ? 0 : rowStart[experts] }

  init(pool: BufferPool) {
    memberTokens = IndexBuffer(pool: pool)
    memberSlots = IndexBuffer(pool: pool)
    memberRows = IndexBuffer(pool: pool)
    memberStart = IndexBuffer(pool: pool)
    rowStart = IndexBuffer(pool: pool)
    rowOfSlot = IndexBuffer(pool: pool)
    firstSlot = IndexBuffer(pool: pool)
    counts = IndexBuffer(pool: pool)
  }

  func members(of expert: Int) -> Range<Int> { memberStart[expert]..<memberStart[expert + 1] }

  func members(ofExperts range: Range<Int>) -> Int { memberStart[range.upperBound] - memberStart[range.lowerBound] }

  func rows(of expert: Int) -> Range<Int> { rowStart[expert]..<rowStart[expert + 1] }

  func rows(of experts: Range<Int>) -> Range<Int> { rowStart[experts.lowerBound]..<rowStart[experts.upperBound] }

  /// Groups the routed pairs by expert: a counting sort, stable in token order.
  mutating func group(_ routing: Routing) throws(CrosspointError) {
    let members = routing.tokensPerExpert.reduce(0, +)
    try memberTokens.resize(members)
    try memberSlots.resize(members)
    try memberRows.resize(members)
    try memberStart.resize(routing.experts + 1)
    try rowStart.resize(routing.experts + 1)
    try rowOfSlot.resize(routing.topkIndices.count)
    memberStart[0] = 0
    for (expert, count) in routing.tokensPerExpert.enumerated() {
      memberStart[expert + 1] = memberStart[expert] + count
    }
    // Until the rows are known, rowStart is each expert's running fill position.
    for expert in 0...routing.experts { rowStart[expert] = memberStart[expert] }
    for (slot, expert) in routing.topkIndices.enumerated() where expert >= 0 {
      let position = rowStart[Int(expert)]
      rowStart[Int(expert)] = position + 1
      memberTokens[position] = slot / routing.topK
      memberSlots[position] = slot
    }
    rowStart[0] = 0
  }

  /// Every member is a row of its own.
  mutating func assignOwnRows() throws(CrosspointError) {
    for expert in 0..<experts {
      for (row, member) in members(of: expert).enumerated() { memberRows[member] = row }
    }
    for index in 0...experts { rowStart[index] = memberStart[index] }
    try finish()
  }

  /// Members of an expert that form a cluster share a row, a centroid; the clusterer has seen the batch.
  mutating func assignClusters(
    _ clusterer: TokenClusterer, into centroids: inout Centroids
  ) throws(CrosspointError) {
    rowStart[0] = 0
    for expert in 0..<experts {
      let range = members(of: expert)
      let clusters = try clusterer.cluster(
        tokens(at: range), clusterOf: memberRows.base + range.lowerBound, into: &centroids)
      rowStart[expert + 1] = rowStart[expert] + clusters
    }
    try finish()
  }

  func tokens(at range: Range<Int>) -> UnsafeBufferPointer<Int32> {
    UnsafeBufferPointer(start: memberTokens.base + range.lowerBound, count: range.count)
  }

  /// Inverts the map: from slots to rows, from rows to their first slot and their size.
  private mutating func finish() throws(CrosspointError) {
    try firstSlot.resize(rows)
    try counts.resize(rows)
    rowOfSlot.base.update(repeating: -1, count: rowOfSlot.count)
    counts.base.update(repeating: 0, count: counts.count)
    for expert in 0..<experts {
      for member in members(of: expert) {
        let row = rowStart[expert] + memberRows[member]
        rowOfSlot[memberSlots[member]] = row
        if counts[row] == 0 { firstSlot[row] = memberSlots[member] }
        counts[row] = counts[row] + 1
      }
    }
  }
}
