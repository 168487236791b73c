import Crosspoint
import Foundation

/// The baseline of most programs: pack, MPI_Alltoallv, unpack.
///
/// Dispatch: count, exchange counts (MPI_Alltoall), pack rows by expert, MPI_Alltoallv, regroup by local expert.
/// Combine: regroup by source, MPI_Alltoallv, weighted sum at the source. Backward the same with the arrows turned. Rows
/// are copied with memcpy, whole runs at a time where they lie together; regrouping is left out where a rank has a single
/// expert.
package final class PlainExchange: BaselineExchange {
  package var seconds = BaselineSeconds()
  package private(set) var rowsPerExpert: [Int] = []
  package private(set) var topkWeightGradients: [Float] = []
  private let transport: any PlainTransport
  private let layout: ExpertLayout
  private let rank: Int
  private let rankCount: Int
  package let localExperts: Range<Int>
  private let pool = BufferPool()
  private let hidden: Int

  private var routing = Routing.none
  /// Row of each slot in the packed order; −1: not sent.
  private var rowOfSlot: [Int] = []
  package private(set) var sentRows: [Int] = []
  package private(set) var receivedRows: [Int] = []
  /// Rows from each rank for each of this rank's experts.
  private var receivedByExpert: [[Int]] = []
  /// The experts' outputs as they came home, in the packed order, for ∂L/∂topkWeights.
  private var outputs: TokenBatch?

  package init(transport: any PlainTransport, layout: ExpertLayout, rank: Int, rankCount: Int) {
    self.transport = transport
    self.layout = layout
    self.rank = rank
    self.rankCount = rankCount
    hidden = layout.hidden
    localExperts = layout.experts(of: rank, rankCount: rankCount)
  }

  /// Over MPI where the fabric is MPI's, else over the fabric's own exchange; within the fabric's deadline.
  package convenience init(fabric: any Fabric, layout: ExpertLayout) {
    let mpi = (fabric as? MPIFabric).map { MPITransport(communicator: $0.communicator, deadline: $0.deadline) }
    self.init(
      transport: mpi ?? FabricTransport(fabric: fabric), layout: layout, rank: fabric.rank, rankCount: fabric.rankCount)
  }

  /// Rows of the last dispatch that went to other ranks, and that came from them.
  package var sentAway: Int { sentRows.reduce(0, +) - sentRows[rank] }
  package var receivedAway: Int { receivedRows.reduce(0, +) - receivedRows[rank] }
  /// Bytes of counts that a dispatch sends to other ranks.
  package var countBytes: Int { 4 * expertsPerRank * (rankCount - 1) }

  /// Those that a rank has at most.
  private var expertsPerRank: Int { (layout.experts + rankCount - 1) / rankCount }

  package func traffic(_ transfer: TransferKind) -> (sent: Int, kept: Int) {
    let rows = transfer.isToExperts ? sentAway : receivedAway
    return (4 * hidden * rows + (transfer == .dispatch ? countBytes : 0), 4 * hidden * sentRows[rank])
  }

  package func dispatch(_ tokens: borrowing TokenBatch, _ routing: Routing) throws(CrosspointError) -> TokenBatch {
    self.routing.copy(routing)
    var watch = Stopwatch()
    try exchangeCounts(routing)
    seconds.move += watch.lap()
    var next = [Int](repeating: 0, count: layout.experts)
    for expert in 1..<max(1, layout.experts) { next[expert] = next[expert - 1] + routing.tokensPerExpert[expert - 1] }
    rowOfSlot.removeAll(keepingCapacity: true)
    let packed = try batch(sentRows.reduce(0, +))
    for (slot, expert) in routing.topkIndices.enumerated() {
      guard expert >= 0 else {
        rowOfSlot.append(-1)
        continue
      }
      let row = next[Int(expert)]
      next[Int(expert)] += 1
      rowOfSlot.append(row)
      memcpy(packed.base + row * hidden, tokens.base + slot / routing.topK * hidden, 4 * hidden)
    }
    seconds.pack += watch.lap()
    return try sendToExperts(packed)
  }

  package func combine(_ output: borrowing TokenBatch) throws(CrosspointError) -> TokenBatch {
    let home = try bringHome(output)
    var watch = Stopwatch()
    let result = try sum(home) { routing.topkWeights[$0] }
    outputs = consume home
    seconds.sum += watch.lap()
    return result
  }

  package func combineBackward(
    _ outputGradient: borrowing TokenBatch, output: borrowing TokenBatch
  ) throws(CrosspointError) -> TokenBatch {
    try combineBackward(outputGradient)
  }

  /// The same; the outputs that came home have been kept.
  package func combineBackward(_ outputGradient: borrowing TokenBatch) throws(CrosspointError) -> TokenBatch {
    let outputs = outputs.take()!
    var watch = Stopwatch()
    let packed = try batch(sentRows.reduce(0, +))
    topkWeightGradients.removeAll(keepingCapacity: true)
    for (slot, row) in rowOfSlot.enumerated() {
      guard row >= 0 else {
        topkWeightGradients.append(0)
        continue
      }
      let gradient = outputGradient.base + slot / routing.topK * hidden
      kernels.scale(packed.base + row * hidden, routing.topkWeights[slot], gradient, hidden)
      topkWeightGradients.append(kernels.dot(gradient, outputs.base + row * hidden, hidden))
    }
    seconds.sum += watch.lap()
    return try sendToExperts(packed)
  }

  package func dispatchBackward(_ rowGradient: borrowing TokenBatch) throws(CrosspointError) -> TokenBatch {
    let home = try bringHome(rowGradient)
    var watch = Stopwatch()
    defer { seconds.sum += watch.lap() }
    return try sum(home) { _ in 1 }
  }

  /// Rows that are packed by expert go to the ranks of their experts.
  private func sendToExperts(_ packed: borrowing TokenBatch) throws(CrosspointError) -> TokenBatch {
    var watch = Stopwatch()
    let received = try batch(receivedRows.reduce(0, +))
    try transport.alltoallv(
      packed.base, sentRows.map { $0 * hidden }, into: received.base, receivedRows.map { $0 * hidden })
    seconds.move += watch.lap()
    guard localExperts.count > 1 else { return received }
    let grouped = try batch(received.rows)
    forEachRun { bySource, byExpert, rows in
      memcpy(grouped.base + byExpert * hidden, received.base + bySource * hidden, 4 * rows * hidden)
    }
    seconds.unpack += watch.lap()
    return grouped
  }

  /// Rows that are grouped by expert go back to where they came from, and lie there in the packed order.
  private func bringHome(_ rows: borrowing TokenBatch) throws(CrosspointError) -> TokenBatch {
    var watch = Stopwatch()
    let home = try batch(sentRows.reduce(0, +))
    if localExperts.count > 1 {
      let packed = try batch(rows.rows)
      forEachRun { bySource, byExpert, count in
        memcpy(packed.base + bySource * hidden, rows.base + byExpert * hidden, 4 * count * hidden)
      }
      seconds.pack += watch.lap()
      try returnRows(packed.base, into: home.base)
    } else {
      try returnRows(rows.base, into: home.base)
    }
    seconds.move += watch.lap()
    return home
  }

  private func returnRows(_ rows: UnsafePointer<Float>, into home: UnsafeMutablePointer<Float>) throws(CrosspointError)
  {
    try transport.alltoallv(rows, receivedRows.map { $0 * hidden }, into: home, sentRows.map { $0 * hidden })
  }

  private func sum(_ home: borrowing TokenBatch, weight: (_ slot: Int) -> Float) throws(CrosspointError) -> TokenBatch {
    let result = try batch(routing.tokens)
    sumRows(home, of: rowOfSlot, topK: routing.topK, into: result, weight: weight)
    return result
  }

  /// Tells every rank how many rows each of its experts gets from here.
  private func exchangeCounts(_ routing: Routing) throws(CrosspointError) {
    let share = expertsPerRank
    var mine = [Int32](repeating: 0, count: share * rankCount)
    sentRows = []
    for peer in 0..<rankCount {
      let experts = layout.experts(of: peer, rankCount: rankCount)
      for (index, expert) in experts.enumerated() {
        mine[peer * share + index] = Int32(routing.tokensPerExpert[expert])
      }
      sentRows.append(experts.reduce(0) { $0 + routing.tokensPerExpert[$1] })
    }
    let theirs = try transport.alltoall(mine)
    receivedByExpert = (0..<rankCount).map { source in
      localExperts.indices.map { Int(theirs[source * share + $0 - localExperts.startIndex]) }
    }
    receivedRows = receivedByExpert.map { $0.reduce(0, +) }
    rowsPerExpert = localExperts.indices.map { local in
      receivedByExpert.reduce(0) { $0 + $1[local - localExperts.startIndex] }
    }
  }

  /// Calls `move` for each run of rows that one source sends to one local expert: where it lies when rows are ordered by
  /// source, and where when they are ordered by expert.
  private func forEachRun(_ move: (_ bySource: Int, _ byExpert: Int, _ rows: Int) -> Void) {
    var sourceStart = [0]
    for rows in receivedRows { sourceStart.append(sourceStart.last! + rows) }
    var byExpert = 0
    for expert in 0..<localExperts.count {
      for source in 0..<rankCount {
        let rows = receivedByExpert[source][expert]
        move(sourceStart[source], byExpert, rows)
        sourceStart[source] += rows
        byExpert += rows
      }
    }
  }

  private func batch(_ rows: Int) throws(CrosspointError) -> TokenBatch {
    try TokenBatch(uninitializedRows: rows, hidden: hidden, pool: pool)
  }
}
