import Crosspoint
import Foundation

/// The baseline: what a careful program does without Crosspoint.
///
/// Dispatch: count, exchange counts (MPI_Alltoall), pack rows by expert, MPI_Alltoallv, regroup by local expert.
/// Combine: regroup by source, MPI_Alltoallv, weighted sum at the source. Rows are copied with memcpy, whole runs at a time
/// where they lie together; regrouping is left out where a rank has a single expert; sums use Crosspoint's own kernels;
/// all buffers are kept from call to call.
final class PlainExchange {
  /// Seconds by phase, summed over calls.
  struct Seconds {
    var pack = 0.0
    var move = 0.0
    var unpack = 0.0
    var sum = 0.0
  }

  var seconds = Seconds()
  private let transport: any PlainTransport
  private let layout: ExpertLayout
  private let rankCount: Int
  private let localExperts: Range<Int>
  private let pool = BufferPool()
  private let hidden: Int

  private var routing: Routing?
  /// Row of each slot in the packed order; −1: not sent.
  private var rowOfSlot: [Int] = []
  /// Rows to each rank, and from each rank for each of this rank's experts.
  private(set) var sentRows: [Int] = []
  private var receivedByExpert: [[Int]] = []
  private(set) var receivedRows: [Int] = []

  init(transport: any PlainTransport, layout: ExpertLayout, rank: Int, rankCount: Int) {
    self.transport = transport
    self.layout = layout
    self.rankCount = rankCount
    hidden = layout.hidden
    localExperts = layout.experts(of: rank, rankCount: rankCount)
  }

  /// Rows for this rank's experts, grouped by expert.
  func dispatch(_ tokens: borrowing TokenBatch, _ routing: Routing) throws -> TokenBatch {
    self.routing = routing
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

  /// The experts' outputs, weighted and summed for each token.
  func combine(_ output: borrowing TokenBatch) throws -> TokenBatch {
    var watch = Stopwatch()
    let home = try batch(sentRows.reduce(0, +))
    if localExperts.count > 1 {
      let packed = try batch(output.rows)
      forEachRun { bySource, byExpert, rows in
        memcpy(packed.base + bySource * hidden, output.base + byExpert * hidden, 4 * rows * hidden)
      }
      seconds.pack += watch.lap()
      try returnRows(packed.base, into: home.base)
    } else {
      try returnRows(output.base, into: home.base)
    }
    seconds.move += watch.lap()
    let result = try weightedSum(home)
    seconds.sum += watch.lap()
    return result
  }

  private func returnRows(_ rows: UnsafePointer<Float>, into home: UnsafeMutablePointer<Float>) throws {
    try transport.alltoallv(rows, receivedRows.map { $0 * hidden }, into: home, sentRows.map { $0 * hidden })
  }

  private func weightedSum(_ home: borrowing TokenBatch) throws -> TokenBatch {
    let routing = routing!
    let result = try batch(routing.tokens)
    for token in 0..<routing.tokens {
      let sum = result.base + token * hidden
      var isFirst = true
      for slot in token * routing.topK..<(token + 1) * routing.topK where rowOfSlot[slot] >= 0 {
        let (weight, output) = (routing.topkWeights[slot], home.base + rowOfSlot[slot] * hidden)
        if isFirst {
          kernels.scale(sum, weight, output, hidden)
        } else {
          kernels.axpy(sum, weight, output, hidden)
        }
        isFirst = false
      }
      if isFirst { sum.update(repeating: 0, count: hidden) }
    }
    return result
  }

  /// Tells every rank how many rows each of its experts gets from here.
  private func exchangeCounts(_ routing: Routing) throws {
    let share = (layout.experts + rankCount - 1) / rankCount
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
