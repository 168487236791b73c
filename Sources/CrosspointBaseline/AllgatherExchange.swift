import Crosspoint
import Foundation

/// The baseline without routing of bytes: every rank gets all tokens and takes those of its experts.
///
/// Dispatch: numbers of tokens (MPI_Alltoall), choices with weights, and tokens (MPI_Allgatherv); rows are selected by expert.
/// Combine: each rank's part of every token's sum, added up (MPI_Reduce_scatter). Backward: MPI_Allgatherv of ∂L/∂y and
/// MPI_Reduce_scatter of the gradients of weights; then MPI_Reduce_scatter of ∂L/∂tokens. Sums over ranks are added in the order
/// that MPI likes.
package final class AllgatherExchange: BaselineExchange {
  package var seconds = BaselineSeconds()
  package private(set) var rowsPerExpert: [Int] = []
  package private(set) var topkWeightGradients: [Float] = []
  package private(set) var sentRows: [Int] = []
  package private(set) var receivedRows: [Int] = []
  private let transport: any PlainTransport
  private let layout: ExpertLayout
  private let rank: Int
  private let rankCount: Int
  private let localExperts: Range<Int>
  private let pool = BufferPool()

  private var topK = 1
  /// Tokens of each rank.
  private var tokens: [Int] = []
  /// Of all ranks' tokens, K experts and K weights each.
  private var choices: TokenBatch
  /// Of all ranks' slots, the row here; −1: not for this rank.
  private var rowOfSlot: [Int] = []

  package init(transport: any PlainTransport, layout: ExpertLayout, rank: Int, rankCount: Int) {
    self.transport = transport
    self.layout = layout
    self.rank = rank
    self.rankCount = rankCount
    localExperts = layout.experts(of: rank, rankCount: rankCount)
    choices = TokenBatch(emptyOfHidden: 2, pool: pool)
  }

  package func dispatch(_ tokens: borrowing TokenBatch, _ routing: Routing) throws(CrosspointError) -> TokenBatch {
    var watch = Stopwatch()
    topK = routing.topK
    let mine = try TokenBatch(uninitializedRows: routing.tokens, hidden: 2 * topK, pool: pool)
    for token in 0..<routing.tokens {
      let (row, slots) = (mine.base + token * 2 * topK, token * topK)
      for k in 0..<topK {
        // The number of an expert is exact in a float.
        row[k] = Float(routing.topkIndices[slots + k])
        row[topK + k] = routing.topkWeights[slots + k]
      }
    }
    seconds.pack += watch.lap()
    let counts = try transport.alltoall([Int32](repeating: Int32(routing.tokens), count: rankCount))
    self.tokens = counts.map(Int.init)
    choices = try gather(mine)
    let all = try gather(tokens)
    seconds.move += watch.lap()
    let rows = try select(all)
    sentRows = (0..<rankCount).map { peer in
      layout.experts(of: peer, rankCount: rankCount).reduce(0) { $0 + routing.tokensPerExpert[$1] }
    }
    seconds.unpack += watch.lap()
    return rows
  }

  package func combine(_ output: borrowing TokenBatch) throws(CrosspointError) -> TokenBatch {
    try bringHome(output) { self.weight($0) }
  }

  package func combineBackward(
    _ outputGradient: borrowing TokenBatch, output: borrowing TokenBatch
  ) throws(CrosspointError) -> TokenBatch {
    var watch = Stopwatch()
    let all = try gather(outputGradient)
    seconds.move += watch.lap()
    let hidden = layout.hidden
    let gradients = try batch(output.rows)
    let ofWeights = try TokenBatch(uninitializedRows: all.rows, hidden: topK, pool: pool)
    for (slot, row) in rowOfSlot.enumerated() {
      guard row >= 0 else {
        ofWeights.base[slot] = 0
        continue
      }
      let gradient = all.base + slot / topK * hidden
      kernels.scale(gradients.base + row * hidden, weight(slot), gradient, hidden)
      ofWeights.base[slot] = kernels.dot(gradient, output.base + row * hidden, hidden)
    }
    seconds.sum += watch.lap()
    let home = try scatter(ofWeights)
    topkWeightGradients.removeAll(keepingCapacity: true)
    topkWeightGradients.append(contentsOf: home.elements)
    seconds.move += watch.lap()
    return gradients
  }

  package func dispatchBackward(_ rowGradient: borrowing TokenBatch) throws(CrosspointError) -> TokenBatch {
    try bringHome(rowGradient) { _ in 1 }
  }

  package func traffic(_ transfer: TransferKind) -> (sent: Int, kept: Int) {
    let (mine, all) = (tokens[rank], tokens.reduce(0, +))
    let row = 4 * layout.hidden
    let gathered = (rankCount - 1) * mine
    let sent =
      switch transfer {
      case .dispatch: gathered * (row + 8 * topK) + 4 * (rankCount - 1)
      case .combine, .dispatchBackward: (all - mine) * row
      case .combineBackward: gathered * row + (all - mine) * 4 * topK
      }
    return (sent, mine * row)
  }

  private func expert(_ slot: Int) -> Int { Int(choices.base[slot / topK * 2 * topK + slot % topK]) }

  private func weight(_ slot: Int) -> Float { choices.base[slot / topK * 2 * topK + topK + slot % topK] }

  /// Copies of the rows of this rank's experts, by expert, then in the order of all tokens.
  private func select(_ all: borrowing TokenBatch) throws(CrosspointError) -> TokenBatch {
    rowsPerExpert = localExperts.map { _ in 0 }
    receivedRows = tokens.map { _ in 0 }
    rowOfSlot.removeAll(keepingCapacity: true)
    var slot = 0
    for (source, count) in tokens.enumerated() {
      for _ in 0..<count * topK {
        let expert = expert(slot)
        let isHere = localExperts.contains(expert)
        // The place among its expert's rows, for now.
        rowOfSlot.append(isHere ? rowsPerExpert[expert - localExperts.lowerBound] : -1)
        if isHere {
          rowsPerExpert[expert - localExperts.lowerBound] += 1
          receivedRows[source] += 1
        }
        slot += 1
      }
    }
    var starts = [0]
    for count in rowsPerExpert { starts.append(starts.last! + count) }
    let hidden = layout.hidden
    let rows = try batch(starts.last!)
    for slot in rowOfSlot.indices where rowOfSlot[slot] >= 0 {
      rowOfSlot[slot] += starts[expert(slot) - localExperts.lowerBound]
      memcpy(rows.base + rowOfSlot[slot] * hidden, all.base + slot / topK * hidden, 4 * hidden)
    }
    return rows
  }

  /// This rank's part of the sums of all tokens, and then the whole sums of its own tokens.
  private func bringHome(
    _ rows: borrowing TokenBatch, weight: (_ slot: Int) -> Float
  ) throws(CrosspointError) -> TokenBatch {
    var watch = Stopwatch()
    let parts = try batch(tokens.reduce(0, +))
    sumRows(rows, of: rowOfSlot, topK: topK, into: parts, weight: weight)
    seconds.sum += watch.lap()
    defer { seconds.move += watch.lap() }
    return try scatter(parts)
  }

  /// All ranks' rows, in rank order.
  private func gather(_ mine: borrowing TokenBatch) throws(CrosspointError) -> TokenBatch {
    let all = try TokenBatch(uninitializedRows: tokens.reduce(0, +), hidden: mine.hidden, pool: pool)
    try transport.allgatherv(mine.base, into: all.base, tokens.map { $0 * mine.hidden })
    return all
  }

  /// The sums over ranks of this rank's rows.
  private func scatter(_ all: borrowing TokenBatch) throws(CrosspointError) -> TokenBatch {
    let mine = try TokenBatch(uninitializedRows: tokens[rank], hidden: all.hidden, pool: pool)
    try transport.reduceScatter(all.base, into: mine.base, tokens.map { $0 * all.hidden })
    return mine
  }

  private func batch(_ rows: Int) throws(CrosspointError) -> TokenBatch {
    try TokenBatch(uninitializedRows: rows, hidden: layout.hidden, pool: pool)
  }
}
