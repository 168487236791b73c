import CrosspointCore
import CrosspointFabric
import CrosspointRouting
import CrosspointTokens

/// One copy per node: a row arrives at one rank of the node, and an exchange of its own takes it on to the experts there. To
/// that exchange rows are tokens, their marks a routing and the shares its weights: so its combine sums what the experts made
/// of a row, in the order of experts, and the gradients of its weights are those of the shares.
///
/// What fails in it is agreed on by all ranks, as in any exchange.
extension ExpertExchange {
  /// Hands the rows that have arrived to the experts of the node: `handle.rows` becomes this rank's share. Collective.
  func dispatchWithinNode(_ node: ExpertExchange, _ handle: DispatchHandle) throws(CrosspointError) {
    let rows = handle.rows.rows
    let topK = (0..<rows).reduce(1) { max($0, handle.copies!.marks.pairs(of: $1).count) }
    nodeRouting.begin(tokens: rows, topK: topK, experts: layout.experts)
    let first = destinations.localExperts.lowerBound
    for row in 0..<rows {
      var slot = row * topK
      handle.copies!.marks.forEachPair(of: row) { pair, expert in
        nodeRouting.choose(slot, expert: first + expert, weight: handle.copies!.marks.weights.base[pair])
        slot += 1
      }
    }
    let inner = try node.dispatch(handle.rows, nodeRouting)
    handle.within = inner
    handle.rows = TokenBatch(viewing: inner.rows)
    handle.rowsPerExpert.refill(with: inner.rowsPerExpert)
    statistics.take(&node.statistics)
  }

  /// The weighted sums of what the node's experts made of each row, which go home. Collective.
  func sumOutputsWithinNode(
    _ node: ExpertExchange, _ output: borrowing TokenBatch, _ handle: DispatchHandle, after failure: CrosspointError?
  ) throws(CrosspointError) {
    handle.copies!.sums = try node.combine(output, handle.innerHandle(of: node, at: handle.stage), after: failure)
    statistics.take(&node.statistics)
  }

  /// ∂L/∂output of each of this rank's rows from those of the rows that arrived in the node. Collective.
  func differentiateOutputsWithinNode(
    _ node: ExpertExchange, _ rows: borrowing TokenBatch, _ handle: DispatchHandle
  ) throws(CrosspointError) -> TokenBatch {
    let gradients = try node.combineBackward(rows, handle.innerHandle(of: node, at: .combined))
    statistics.take(&node.statistics)
    return gradients
  }

  /// The sums of the gradients of each row, which go home, and those of its shares. Collective.
  func sumGradientsWithinNode(
    _ node: ExpertExchange, _ rowGradient: borrowing TokenBatch, _ handle: DispatchHandle,
    after failure: CrosspointError?
  ) throws(CrosspointError) {
    handle.copies!.sums = try node.dispatchBackward(
      rowGradient, handle.innerHandle(of: node, at: handle.stage), after: failure)
    statistics.take(&node.statistics)
  }

  /// The gradients of the shares of each row that arrived, in the order of its marks.
  func takeShareGradientsWithinNode(_ handle: DispatchHandle) throws(CrosspointError) {
    let inner = handle.within!
    let gradients = try TokenBatch(uninitializedRows: handle.copies!.marks.pairs, hidden: 1, pool: pool)
    for row in 0..<handle.received.total {
      for (place, pair) in handle.copies!.marks.pairs(of: row).enumerated() {
        gradients.base[pair] = inner.topkWeightGradients[row * inner.routing.topK + place]
      }
    }
    handle.copies!.shareGradients = gradients
  }

  /// The ranks of a node: as many as wanted, or as share memory. Collective.
  /// - Throws: `invalidArgument` if ranks do not form nodes of that size, in order.
  static func nodeSize(
    wanted: Int?, _ node: ExpertExchange, _ agreement: Agreement
  ) throws(CrosspointError) -> Int {
    let (fabric, sharing) = (node.fabric, node.transfer.tables.ranks.sorted())
    let size = wanted ?? sharing.count
    try fabric.requireEqual([("ranks of a node", "\(size)")], operation: "ExpertExchange.init")
    func problem(_ message: String) -> CrosspointError {
      CrosspointError(
        .invalidArgument, operation: "ExpertExchange.init", rank: fabric.rank, argument: "copies", message)
    }
    var failure: CrosspointError?
    if size < 1 || !fabric.rankCount.isMultiple(of: size) {
      failure = problem("\(fabric.rankCount) ranks do not form nodes of \(size)")
    } else if wanted == nil, sharing.first! != fabric.rank / size * size || sharing.last! != sharing.first! + size - 1 {
      failure = problem(
        "ranks \(sharing) share memory: nodes of consecutive ranks are needed, or their size as node:RANKS")
    }
    try agreement.settle(failure, operation: "ExpertExchange.init")
    return size
  }
}

extension DispatchHandle {
  /// The dispatch within the node, at the point of its life where this one is: a call that failed between nodes is made again.
  fileprivate func innerHandle(of node: ExpertExchange, at stage: Stage) -> DispatchHandle {
    let inner = within ?? node.vacantHandle()
    inner.stage = stage
    return inner
  }
}
