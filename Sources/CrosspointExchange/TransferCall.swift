import CrosspointCompression
import CrosspointCore
import CrosspointTokens

/// A call of one of the four transfers, from its begin to its finish; used again for later ones.
package final class TransferCall {
  let transfer: Transfer
  /// What a policy says of it; `nil`: the caller's settings hold.
  @exclusivity(unchecked) var plan: TransferPlan?
  /// What is remembered once it has ended well; `nil`: nothing new.
  var learned: RowMemory?
  /// What it is about; `nil`: nothing is under way.
  var handle: DispatchHandle?
  /// What had gone wrong on this rank when it was announced.
  var failure: CrosspointError?
  /// The caller's rows.
  var input: RowsView?
  /// Whether sums over clusters are written where they belong, not kept.
  var writesSums = false
  /// Rows for what it gives; for the copies of those that arrive; and for those that come home, or with waves for what they
  /// fill, or are filled from. Empty until there are any.
  @exclusivity(unchecked) var result: TokenBatch
  @exclusivity(unchecked) var copies: TokenBatch?
  @exclusivity(unchecked) var returned: TokenBatch
  /// What experts are to work on of what has arrived.
  @exclusivity(unchecked) var waves = WaveQueue()

  init(_ transfer: Transfer) {
    self.transfer = transfer
    result = transfer.noRows
    returned = transfer.noRows
  }

  /// Hands the rows out that it gives.
  func takeResult() -> TokenBatch {
    var rows = transfer.noRows
    swap(&rows, &result)
    return rows
  }

  /// Hands the rows out that waves have filled.
  func takeReturned() -> TokenBatch {
    var rows = transfer.noRows
    swap(&rows, &returned)
    return rows
  }

  /// Gives all memory back.
  func end() {
    transfer.end()
    (plan, learned, handle, failure, input) = (nil, nil, nil, nil, nil)
    result = transfer.noRows
    copies = nil
    waves.begin(experts: 0)
    returned = transfer.noRows
  }
}

/// The begin and the finish of every call.
extension ExpertExchange {
  /// Begins a call: `body` does all that needs no other rank, and announces it. Collective.
  ///
  /// - Parameter failure: what is wrong on this rank already.
  func begin(
    _ kind: TransferKind, _ handle: DispatchHandle, after failure: CrosspointError?,
    _ body: (TransferCall) throws(CrosspointError) -> Void
  ) throws(CrosspointError) -> TransferCall {
    if !calls.contains(where: { $0.handle == nil }) { try addCall() }
    call = calls.first { $0.handle == nil }!
    call.handle = handle
    handle.calls += 1
    sequence += 1
    transfer.begin(kind, sequence, of: kind == .dispatch ? sequence : handle.number)
    transfer.memory = memory[kind]
    call.failure = fabric.collectiveMemory.takeUnsettled() ?? failure
    if policy != nil, !isAlone { call.failure = call.failure ?? misuse(Self.policyIsBusy) }
    do throws(CrosspointError) {
      let begun = call
      try body(begun)
      return begun
    } catch {
      end(call)
      throw error
    }
  }

  /// Whether no other call is under way.
  var isAlone: Bool { calls.allSatisfy { $0.handle == nil || $0 === call } }

  private static let policyIsBusy =
    "another transfer of this exchange is under way: with a policy, finish each before the next begins"

  /// Finishes a call, however it goes. Collective.
  func finish<Result: ~Copyable>(
    _ begun: TransferCall,
    _ body: (_ handle: DispatchHandle, _ attempt: inout Attempt) throws(CrosspointError) -> Result
  ) throws(CrosspointError) -> Result {
    call = begun
    defer { end(begun) }
    var attempt = Attempt(begun.failure)
    do throws(CrosspointError) {
      return try body(begun.handle!, &attempt)
    } catch {
      // What experts made of waves is void, on whichever rank.
      if begun.transfer.anyInWaves { begun.handle!.stage = .spoiled }
      // A rank that drops the call leaves the error to the next vote, which then is every rank's.
      if options.agreement == .deferred { fabric.collectiveMemory.deferVote(nil) }
      throw error
    }
  }

  private func end(_ call: TransferCall) {
    call.handle?.calls -= 1
    call.end()
  }

  /// Makes another call possible while those that exist are under way: once for each number of them. Collective.
  private func addCall() throws(CrosspointError) {
    var attempt = Attempt()
    let made = attempt { () throws(CrosspointError) in try Transfer(like: transfer) }
    try NodeTables.connect(made?.tables, fabric, &attempt)
    try transfer.agreement.settle(attempt.failure, operation: "ExpertExchange.begin")
    calls.append(TransferCall(made!))
  }
}

/// A dispatch that has been begun: see ``ExpertExchange/beginDispatch(_:_:labels:)``.
public struct PendingDispatch: ~Copyable {
  private let exchange: ExpertExchange
  private var call: TransferCall?

  package init(_ exchange: ExpertExchange, _ call: TransferCall) { (self.exchange, self.call) = (exchange, call) }

  /// Waits for the rows. Collective.
  /// - Parameter work: see ``LocalWork``.
  /// - Throws: as ``ExpertExchange/dispatch(_:_:labels:meanwhile:)``.
  public consuming func finish(
    meanwhile work: LocalWork = { () throws(CrosspointError) in false }
  ) throws(CrosspointError) -> DispatchHandle {
    try exchange.finishDispatch(call.take()!, meanwhile: work)
  }

  deinit {
    if let call { exchange.drop { () throws(CrosspointError) in _ = try exchange.finishDispatch(call) } }
  }
}

/// A combine, combineBackward or dispatchBackward that has been begun: see ``ExpertExchange/beginDispatch(_:_:labels:)``.
public struct PendingRows: ~Copyable {
  private let exchange: ExpertExchange
  private var call: TransferCall?

  package init(_ exchange: ExpertExchange, _ call: TransferCall) { (self.exchange, self.call) = (exchange, call) }

  /// Waits for the rows. Collective.
  /// - Parameter work: see ``LocalWork``.
  /// - Returns: what the plain call returns; a view of the caller's memory, where the result was to go there.
  /// - Throws: as the plain call.
  public consuming func finish(
    meanwhile work: LocalWork = { () throws(CrosspointError) in false }
  ) throws(CrosspointError) -> TokenBatch {
    try exchange.finishRows(call.take()!, meanwhile: work)
  }

  deinit {
    if let call { exchange.drop { () throws(CrosspointError) in _ = try exchange.finishRows(call) } }
  }
}

extension ExpertExchange {
  /// Finishes what nobody waits for. With deferred agreement the next vote tells what went wrong, in it or before.
  fileprivate func drop(_ finish: () throws(CrosspointError) -> Void) {
    do throws(CrosspointError) { try finish() } catch {
      if options.agreement == .deferred { fabric.collectiveMemory.deferVote(error) }
    }
  }

  func finishRows(
    _ call: TransferCall, meanwhile work: LocalWork = { () throws(CrosspointError) in false }
  ) throws(CrosspointError) -> TokenBatch {
    switch call.transfer.kind {
    case .combine: try finishCombine(call, meanwhile: work)
    case .combineBackward: try finishCombineBackward(call, meanwhile: work)
    case .dispatchBackward: try finishDispatchBackward(call, meanwhile: work)
    case .dispatch: preconditionFailure("a dispatch gives a handle")
    }
  }
}
