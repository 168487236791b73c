import CrosspointCompression
import CrosspointCore
import CrosspointFabric
import CrosspointRouting
import CrosspointTokens

/// Sends each token to the ranks that hold its experts, and back: one per MoE layer.
///
/// ```swift
/// let exchange = try ExpertExchange(fabric: fabric, layout: ExpertLayout(experts: 16, hidden: 768))
/// let handle = try exchange.dispatch(tokens, routing)         // handle.rows, grouped by local expert
/// let y = try exchange.combine(experts(handle.rows), handle)  // router weights are applied here, at the source
/// ```
///
/// Every method that communicates is collective: every rank calls it, in the same order, also with zero tokens. What is
/// wrong on one rank is thrown on all, as the same ``CrosspointError``. An exchange belongs to one thread.
///
/// Each transfer can be begun, to do something else while bytes are under way, and be finished later: see
/// ``beginDispatch(_:_:labels:)``.
public final class ExpertExchange {
  public let layout: ExpertLayout
  /// What was chosen; automatic copies are decided.
  public let options: ExchangeOptions
  /// This rank's experts.
  public let localExperts: Range<Int>
  /// What was moved since the last reset.
  @exclusivity(unchecked) public var statistics: LayerStatistics
  /// What is added back of residuals, with its learned parameters. They are data-parallel: reduce ``Compensator/gradients``
  /// over ranks like other shared gradients, step, and reset them; keep the parameters the same on every rank.
  @exclusivity(unchecked) public var compensator: Compensator

  /// Which layer of the model it serves: the rounding of gradients draws other numbers for each.
  package let layer: Int
  /// Calls of ``combineBackward(_:_:meanwhile:)`` so far; with seed and layer, what the rounding of gradients draws its
  /// numbers from.
  var gradientSteps: UInt64 = 0

  /// What rows are addressed to: experts, or with shared copies ranks or nodes.
  let destinations: Destinations
  /// With one copy per node, what takes rows on to their experts within each node, and back.
  let nodeExchange: ExpertExchange?
  /// What that exchange is asked to do, in the memory of the last time.
  @exclusivity(unchecked) var nodeRouting = Routing.none
  let fabric: any Fabric
  let pool: BufferPool
  let clusterer: TokenClusterer?
  let policy: (any TransferPolicy)?
  /// The calls that can be under way at once, and the one that is at work.
  @exclusivity(unchecked) var calls: [TransferCall]
  var call: TransferCall
  var transfer: Transfer { call.transfer }
  /// Calls begun so far.
  var sequence: UInt64 = 0
  /// What every rank remembers of the rows under way; the same on all of them, or their frames are refused.
  @exclusivity(unchecked) package var memory: ExchangeMemory
  /// Whether it learns from what is sent: a policy may change its choice, and a memory what it remembers. The same on every
  /// rank. Set it to false while evaluating, so that training goes on as if there had been no evaluation.
  @exclusivity(unchecked) public var adapts = true {
    didSet { policy?.adapts = adapts }
  }
  /// How many centroids the last dispatch with clusters had.
  var lastCentroidCount = 0
  /// Where the rows of the transfer at work lie.
  @exclusivity(unchecked) var places = HomeRows()
  @exclusivity(unchecked) private var handles: [DispatchHandle] = []

  /// Collective: checks that every rank passes the same layout and options.
  /// - Parameter layer: which layer of the model it serves, from 0: the rounding of gradients draws other numbers for each.
  /// - Throws: `invalidArgument` for options that do not fit the layout and a layer outside 0…2³¹ − 1, `ranksDisagree`
  ///   naming the first rank and option that differ from rank 0, and the fabric's errors.
  public convenience init(
    fabric: any Fabric, layout: ExpertLayout, options: ExchangeOptions = .init(), layer: Int = 0
  ) throws(CrosspointError) {
    try self.init(fabric: fabric, layout: layout, options: options, layer: layer, smallBytes: nil)
    // All ranks have the same.
    if fabric.rank == 0 {
      let what = "layer \(layer): \(layout.experts) experts of \(layout.hidden) on \(fabric.rankCount) ranks"
      Log.write(.info, rank: 0, "\(what): \(self.options)")
    }
  }

  /// - Parameters:
  ///   - smallBytes: of bodies that travel with their announcements, fewer than ``Transfer/blockBytes``; the same on every
  ///     rank; `nil`: ``Transfer/smallBytes(ranks:)``.
  ///   - pool: that of the exchange whose part it is; `nil`: one of its own.
  package init(
    fabric: any Fabric, layout: ExpertLayout, options: ExchangeOptions = .init(), layer: Int = 0, smallBytes: Int?,
    pool: BufferPool? = nil
  ) throws(CrosspointError) {
    self.fabric = fabric
    self.layout = layout
    self.layer = layer
    memory = ExchangeMemory(interval: options.memory)
    localExperts = layout.experts(of: fabric.rank, rankCount: fabric.rankCount)
    let pool = pool ?? BufferPool(capacity: options.capacityBytes, memory: fabric.sharedMemory)
    self.pool = pool
    statistics = LayerStatistics(experts: layout.experts, ranks: fabric.rankCount)
    try fabric.requireEqual(
      [("experts", "\(layout.experts)"), ("hidden", "\(layout.hidden)")] + options.pairs,
      operation: "ExpertExchange.init")
    let agreement = Agreement(fabric: fabric)
    let options = try options.decidingCopies(layout: layout, fabric: fabric)
    self.options = options
    if case .perNode(let ranks) = options.copies {
      // What lies within a node moves in memory, so it is not coded: bits depend on the nodes' size alone.
      let exchange = try ExpertExchange(
        fabric: fabric, layout: layout, options: ExchangeOptions(nonFinite: options.nonFinite), layer: layer,
        smallBytes: smallBytes, pool: pool
      )
      let nodeSize = try Self.nodeSize(wanted: ranks, exchange, agreement)
      nodeExchange = nodeSize > 1 ? exchange : nil
      destinations = Destinations(layout, rank: fabric.rank, rankCount: fabric.rankCount, nodeSize: nodeSize)
    } else {
      nodeExchange = nil
      destinations = Destinations(
        layout, rank: fabric.rank, rankCount: fabric.rankCount, nodeSize: options.copies == .perRank ? 1 : nil)
    }
    // Options are the same everywhere, caps need not be: what fails here may fail on one rank alone.
    var attempt = Attempt()
    attempt { () throws(CrosspointError) in
      try Extent.require(layer, in: 0...Int(Int32.max), operation: "ExpertExchange.init", argument: "layer")
    }
    let parts = attempt { [destinations, pool] () throws(CrosspointError) in
      try Self.parts(
        fabric: fabric, layout: layout, destinations: destinations, options: options, smallBytes: smallBytes,
        agreement: agreement, pool: pool)
    }
    try NodeTables.connect(parts?.transfer.tables, fabric, &attempt)
    try agreement.settle(attempt.failure, operation: "ExpertExchange.init")
    call = TransferCall(parts!.transfer)
    calls = [call]
    clusterer = parts!.clusterer
    compensator = parts!.compensator
    policy = parts!.policy
    try policy?.start(agreement)
  }

  /// Bytes that the buffers of this exchange held at most.
  public var peakBufferBytes: Int { pool.peakBytes }

  /// A handle that nobody uses. The buffers of all such are given back.
  func vacantHandle() -> DispatchHandle {
    var vacant: Int?
    for index in handles.indices where isKnownUniquelyReferenced(&handles[index]) {
      if handles[index].stage != .idle { handles[index].recycle() }
      vacant = vacant ?? index
    }
    if vacant == nil {
      handles.append(
        DispatchHandle(owner: ObjectIdentifier(self), hidden: layout.hidden, type: options.rows, pool: pool))
    }
    let handle = handles[vacant ?? handles.count - 1]
    // Also if the dispatch fails it may keep buffers.
    handle.stage = .finished
    return handle
  }

  /// Whether residuals of a dispatch are added back.
  func compensates(_ handle: DispatchHandle) -> Bool { handle.source.isClustered && compensator.isActive }

  /// Whether the members of a row have residuals that are added back; a lone one has none.
  func compensates(_ handle: DispatchHandle, row: Int) -> Bool {
    compensates(handle) && handle.source.plan.counts[row] > 1
  }

  private struct Parts {
    let transfer: Transfer
    let clusterer: TokenClusterer?
    let compensator: Compensator
    let policy: (any TransferPolicy)?
  }

  /// What takes memory or can refuse the options.
  private static func parts(
    fabric: any Fabric, layout: ExpertLayout, destinations: Destinations, options: ExchangeOptions,
    smallBytes: Int?, agreement: Agreement, pool: BufferPool
  ) throws(CrosspointError) -> Parts {
    try options.validate()
    let codec = try RowCodec(hidden: layout.hidden, seed: options.seed, rows: options.rows, pool: pool)
    let transfer = try Transfer(
      fabric: fabric, groups: destinations.mostPerRank,
      metadataBytesPerRow: options.copies == .perExpert
        ? 0 : ExpertMarks.bytesPerRow(experts: destinations.mostExperts),
      codec: codec, isPlainWithinNode: options.withinNode == .plain,
      noteCapacity: options.policy.settings?.noteCapacity ?? 0, smallBytes: smallBytes, agreement: agreement,
      pool: pool)
    let policy = try options.policy.makePolicy(transfer)
    let compensator = try Compensator(
      kind: options.activeCompensation, experts: layout.experts, hidden: layout.hidden, seed: options.seed)
    var clusterer: TokenClusterer?
    if let cluster = options.clusters {
      clusterer = try TokenClusterer(options: cluster, hidden: layout.hidden, seed: options.seed, pool: pool)
    }
    return Parts(transfer: transfer, clusterer: clusterer, compensator: compensator, policy: policy)
  }
}
