// swift-format-ignore-file: AlwaysUseLowerCamelCase
// Names are those of crosspoint.h.

public import CCrosspoint
import CrosspointCore
import CrosspointExchange
import CrosspointRouting
import CrosspointTokens

/// A dispatch as C holds it.
final class HandleOfC {
  let handle: DispatchHandle
  /// What ``ExpertExchange/combineBackward(_:_:meanwhile:)`` gave; without rows before.
  @exclusivity(unchecked) var outputGradients: TokenBatch

  init(_ handle: DispatchHandle, pool: BufferPool) {
    self.handle = handle
    outputGradients = TokenBatch(emptyOfHidden: handle.rows.hidden, pool: pool)
  }
}

/// A transfer that C has begun, with the memory that it reads and writes.
///
/// Arguments that are wrong on one rank must not keep it from a transfer that the others have begun: it takes part, and fails
/// with the true cause.
final class PendingOfC {
  private let owner: ExchangeOfC
  private let kind: TransferKind
  /// The dispatch that it belongs to, if it is none itself.
  private let dispatched: HandleOfC?
  private var failure: CrosspointError?
  /// What it sends, and where it belongs what comes home.
  @exclusivity(unchecked) private var input: TokenBatch
  @exclusivity(unchecked) private var result: ResultRows?
  /// Where C wants what else it gives.
  private let handle: UnsafeMutablePointer<OpaquePointer?>?
  private var gradients: UnsafeMutablePointer<crosspoint_rows>?
  @exclusivity(unchecked) private var dispatch: PendingDispatch?
  @exclusivity(unchecked) private var rows: PendingRows?

  private init(
    _ kind: TransferKind, _ owner: ExchangeOfC, _ dispatched: HandleOfC?,
    handle: UnsafeMutablePointer<OpaquePointer?>? = nil, failure: CrosspointError? = nil
  ) {
    (self.kind, self.owner, self.dispatched, self.handle, self.failure) = (kind, owner, dispatched, handle, failure)
    input = TokenBatch(emptyOfHidden: owner.exchange.layout.hidden, pool: owner.pool)
  }

  /// Takes arguments; what is wrong with them is kept.
  private func read(_ body: () throws(CrosspointError) -> Void) {
    do throws(CrosspointError) { try body() } catch { failure = error }
  }

  /// What has not been finished is finished while the exchange and the caller's rows are there.
  deinit {
    dispatch = nil
    rows = nil
  }

  private func begin(_ plan: Routing? = nil, labels: [Int32]? = nil) throws(CrosspointError) -> PendingOfC {
    let exchange = owner.exchange
    let target = result?.batch.view
    switch (kind, dispatched?.handle) {
    case (.combine, let handle?):
      rows = PendingRows(
        exchange, try exchange.beginCombine(input, handle, into: target, after: failure))
    case (.combineBackward, let handle?):
      rows = PendingRows(exchange, try exchange.beginCombineBackward(input, handle, after: failure))
    case (.dispatchBackward, let handle?):
      rows = PendingRows(
        exchange, try exchange.beginDispatchBackward(input, handle, into: target, after: failure))
    case (.dispatch, _), (_, nil):
      dispatch = PendingDispatch(
        exchange, try exchange.beginDispatch(input, plan ?? .none, labels: labels, after: failure))
    }
    return self
  }

  /// - Throws: `handleMisuse` the second time.
  func finish() throws(CrosspointError) {
    if let dispatch = dispatch.take() {
      // A refusal has no handle, and fails here.
      let dispatched = HandleOfC(try dispatch.finish(), pool: owner.pool)
      handle?.pointee = handOut(dispatched)
    } else if let rows = rows.take() {
      let received = try rows.finish()
      if let gradients {
        dispatched!.outputGradients = received
        show(dispatched!.outputGradients, in: gradients)
      }
      result?.deliver()
    } else {
      throw CrosspointError(
        .handleMisuse, operation: "crosspoint_pending_finish", argument: "pending",
        "it has been finished")
    }
  }

  static func dispatch(
    _ exchange: OpaquePointer?, _ tokens: UnsafePointer<crosspoint_rows>?,
    _ routing: UnsafePointer<crosspoint_routing>?, _ handle: UnsafeMutablePointer<OpaquePointer?>?
  ) throws(CrosspointError) -> PendingOfC {
    let owner: ExchangeOfC = try object(exchange, "dispatch", "exchange")
    let pending = try PendingOfC(.dispatch, owner, nil, handle: place(handle, "dispatch", "handle"))
    var (plan, labels): (Routing?, [Int32]?)
    pending.read { () throws(CrosspointError) in
      (plan, labels) = try CrosspointC.routing(routing, experts: owner.exchange.layout.experts)
      pending.input = try CrosspointC.input(tokens, "dispatch", "tokens", pool: owner.pool)
    }
    return try pending.begin(plan, labels: labels)
  }

  static func combine(
    _ exchange: OpaquePointer?, _ handle: OpaquePointer?, _ outputs: UnsafePointer<crosspoint_rows>?,
    _ result: UnsafePointer<crosspoint_rows>?
  ) throws(CrosspointError) -> PendingOfC {
    let owner: ExchangeOfC = try object(exchange, "combine", "exchange")
    let dispatched: HandleOfC = try object(handle, "combine", "handle")
    let pending = PendingOfC(.combine, owner, dispatched)
    pending.read { () throws(CrosspointError) in
      pending.result = try ResultRows(result, "combine", "result", pool: owner.pool)
      pending.input =
        outputs == nil
        ? try dispatched.handle.outputs() : try CrosspointC.input(outputs, "combine", "outputs", pool: owner.pool)
    }
    return try pending.begin()
  }

  static func combineBackward(
    _ exchange: OpaquePointer?, _ handle: OpaquePointer?, _ resultGradient: UnsafePointer<crosspoint_rows>?,
    _ outputGradients: UnsafeMutablePointer<crosspoint_rows>?
  ) throws(CrosspointError) -> PendingOfC {
    let owner: ExchangeOfC = try object(exchange, "combineBackward", "exchange")
    let pending = try PendingOfC(.combineBackward, owner, object(handle, "combineBackward", "handle"))
    pending.read { () throws(CrosspointError) in
      pending.gradients = try place(struct: outputGradients, "combineBackward", "output_gradients")
      pending.input = try CrosspointC.input(resultGradient, "combineBackward", "result_gradient", pool: owner.pool)
    }
    return try pending.begin()
  }

  static func dispatchBackward(
    _ exchange: OpaquePointer?, _ handle: OpaquePointer?, _ rowGradients: UnsafePointer<crosspoint_rows>?,
    _ tokenGradients: UnsafePointer<crosspoint_rows>?
  ) throws(CrosspointError) -> PendingOfC {
    let owner: ExchangeOfC = try object(exchange, "dispatchBackward", "exchange")
    let dispatched: HandleOfC = try object(handle, "dispatchBackward", "handle")
    let pending = PendingOfC(.dispatchBackward, owner, dispatched)
    pending.read { () throws(CrosspointError) in
      pending.result = try ResultRows(tokenGradients, "dispatchBackward", "token_gradients", pool: owner.pool)
      pending.input =
        rowGradients == nil
        ? try dispatched.handle.rowGradients()
        : try CrosspointC.input(rowGradients, "dispatchBackward", "row_gradients", pool: owner.pool)
    }
    return try pending.begin()
  }

  /// Takes part in a transfer only to fail it.
  static func refuse(
    _ exchange: OpaquePointer?, _ handle: OpaquePointer?, _ transfer: Int32, _ argument: UnsafePointer<CChar>?,
    _ message: UnsafePointer<CChar>?
  ) throws(CrosspointError) -> PendingOfC {
    let operation = "crosspoint_exchange_refuse"
    let owner: ExchangeOfC = try object(exchange, operation, "exchange")
    guard let kind = TransferKind(rawValue: Int(transfer)) else { throw invalid(operation, "transfer", "\(transfer)") }
    let problem = invalid(
      "\(kind.operation)", argument.map { String(cString: $0) } ?? "", message.map { String(cString: $0) } ?? "")
    return try refuse(owner, kind, kind == .dispatch ? nil : object(handle, operation, "handle"), problem)
  }

  /// - Parameter dispatched: the dispatch that it belongs to; `nil` where there is none that the other ranks have.
  static func refuse(
    _ owner: ExchangeOfC, _ kind: TransferKind, _ dispatched: HandleOfC?, _ problem: CrosspointError
  ) throws(CrosspointError) -> PendingOfC {
    try PendingOfC(kind, owner, dispatched, failure: problem).begin()
  }
}

/// Begins a transfer and finishes it, or leaves that to C where it asks for what is pending.
private func run(
  _ pending: UnsafeMutablePointer<OpaquePointer?>?, _ begin: () throws(CrosspointError) -> PendingOfC
) -> crosspoint_status {
  status { () throws(CrosspointError) in
    let begun = try begin()
    if let pending { pending.pointee = handOut(begun) } else { try begun.finish() }
  }
}

@c @implementation
public func crosspoint_exchange_refuse(
  _ exchange: OpaquePointer?, _ handle: OpaquePointer?, _ transfer: Int32, _ argument: UnsafePointer<CChar>?,
  _ message: UnsafePointer<CChar>?
) -> crosspoint_status {
  crosspoint_exchange_refuse_begin(exchange, handle, transfer, argument, message, nil)
}

@c @implementation
public func crosspoint_exchange_refuse_begin(
  _ exchange: OpaquePointer?, _ handle: OpaquePointer?, _ transfer: Int32, _ argument: UnsafePointer<CChar>?,
  _ message: UnsafePointer<CChar>?, _ pending: UnsafeMutablePointer<OpaquePointer?>?
) -> crosspoint_status {
  run(pending) { () throws(CrosspointError) in
    try PendingOfC.refuse(exchange, handle, transfer, argument, message)
  }
}

@c @implementation
public func crosspoint_dispatch(
  _ exchange: OpaquePointer?, _ tokens: UnsafePointer<crosspoint_rows>?,
  _ routing: UnsafePointer<crosspoint_routing>?, _ handle: UnsafeMutablePointer<OpaquePointer?>?
) -> crosspoint_status {
  crosspoint_dispatch_begin(exchange, tokens, routing, handle, nil)
}

@c @implementation
public func crosspoint_dispatch_begin(
  _ exchange: OpaquePointer?, _ tokens: UnsafePointer<crosspoint_rows>?,
  _ routing: UnsafePointer<crosspoint_routing>?, _ handle: UnsafeMutablePointer<OpaquePointer?>?,
  _ pending: UnsafeMutablePointer<OpaquePointer?>?
) -> crosspoint_status {
  run(pending) { () throws(CrosspointError) in try PendingOfC.dispatch(exchange, tokens, routing, handle) }
}

@c @implementation
public func crosspoint_combine(
  _ exchange: OpaquePointer?, _ handle: OpaquePointer?, _ outputs: UnsafePointer<crosspoint_rows>?,
  _ result: UnsafePointer<crosspoint_rows>?
) -> crosspoint_status {
  crosspoint_combine_begin(exchange, handle, outputs, result, nil)
}

@c @implementation
public func crosspoint_combine_begin(
  _ exchange: OpaquePointer?, _ handle: OpaquePointer?, _ outputs: UnsafePointer<crosspoint_rows>?,
  _ result: UnsafePointer<crosspoint_rows>?, _ pending: UnsafeMutablePointer<OpaquePointer?>?
) -> crosspoint_status {
  run(pending) { () throws(CrosspointError) in try PendingOfC.combine(exchange, handle, outputs, result) }
}

@c @implementation
public func crosspoint_combine_backward(
  _ exchange: OpaquePointer?, _ handle: OpaquePointer?, _ resultGradient: UnsafePointer<crosspoint_rows>?,
  _ outputGradients: UnsafeMutablePointer<crosspoint_rows>?
) -> crosspoint_status {
  crosspoint_combine_backward_begin(exchange, handle, resultGradient, outputGradients, nil)
}

@c @implementation
public func crosspoint_combine_backward_begin(
  _ exchange: OpaquePointer?, _ handle: OpaquePointer?, _ resultGradient: UnsafePointer<crosspoint_rows>?,
  _ outputGradients: UnsafeMutablePointer<crosspoint_rows>?, _ pending: UnsafeMutablePointer<OpaquePointer?>?
) -> crosspoint_status {
  run(pending) { () throws(CrosspointError) in
    try PendingOfC.combineBackward(exchange, handle, resultGradient, outputGradients)
  }
}

@c @implementation
public func crosspoint_dispatch_backward(
  _ exchange: OpaquePointer?, _ handle: OpaquePointer?, _ rowGradients: UnsafePointer<crosspoint_rows>?,
  _ tokenGradients: UnsafePointer<crosspoint_rows>?
) -> crosspoint_status {
  crosspoint_dispatch_backward_begin(exchange, handle, rowGradients, tokenGradients, nil)
}

@c @implementation
public func crosspoint_dispatch_backward_begin(
  _ exchange: OpaquePointer?, _ handle: OpaquePointer?, _ rowGradients: UnsafePointer<crosspoint_rows>?,
  _ tokenGradients: UnsafePointer<crosspoint_rows>?, _ pending: UnsafeMutablePointer<OpaquePointer?>?
) -> crosspoint_status {
  run(pending) { () throws(CrosspointError) in
    try PendingOfC.dispatchBackward(exchange, handle, rowGradients, tokenGradients)
  }
}

@c @implementation
public func crosspoint_pending_finish(_ pending: OpaquePointer?) -> crosspoint_status {
  status { () throws(CrosspointError) in
    let begun: PendingOfC = try object(pending, "crosspoint_pending_finish", "pending")
    try begun.finish()
  }
}

@c @implementation
public func crosspoint_pending_free(_ pending: OpaquePointer?) { takeBack(pending, as: PendingOfC.self) }

@c @implementation
public func crosspoint_handle_rows(
  _ handle: OpaquePointer?, _ rows: UnsafeMutablePointer<crosspoint_rows>?
) -> crosspoint_status {
  status { () throws(CrosspointError) in
    let dispatched: HandleOfC = try object(handle, "crosspoint_handle_rows", "handle")
    show(dispatched.handle.rows, in: try place(struct: rows, "crosspoint_handle_rows", "rows"))
  }
}

@c @implementation
public func crosspoint_handle_outputs(
  _ handle: OpaquePointer?, _ outputs: UnsafeMutablePointer<crosspoint_rows>?
) -> crosspoint_status {
  status { () throws(CrosspointError) in
    let dispatched: HandleOfC = try object(handle, "crosspoint_handle_outputs", "handle")
    let target = try place(struct: outputs, "crosspoint_handle_outputs", "outputs")
    show(try dispatched.handle.outputs(), in: target)
  }
}

@c @implementation
public func crosspoint_handle_row_gradients(
  _ handle: OpaquePointer?, _ rowGradients: UnsafeMutablePointer<crosspoint_rows>?
) -> crosspoint_status {
  status { () throws(CrosspointError) in
    let dispatched: HandleOfC = try object(handle, "crosspoint_handle_row_gradients", "handle")
    let target = try place(struct: rowGradients, "crosspoint_handle_row_gradients", "row_gradients")
    show(try dispatched.handle.rowGradients(), in: target)
  }
}

@c @implementation
public func crosspoint_handle_rows_per_expert(
  _ handle: OpaquePointer?, _ rowsPerExpert: UnsafeMutablePointer<Int64>?, _ count: Int64
) -> crosspoint_status {
  status { () throws(CrosspointError) in
    let operation = "crosspoint_handle_rows_per_expert"
    let dispatched: HandleOfC = try object(handle, operation, "handle")
    let rows = dispatched.handle.rowsPerExpert
    try copy(rows.count, to: rowsPerExpert, count, operation, "rows_per_expert") { Int64(rows[$0]) }
  }
}

@c @implementation
public func crosspoint_handle_weight_gradients(
  _ handle: OpaquePointer?, _ gradients: UnsafeMutablePointer<Float>?, _ count: Int64
) -> crosspoint_status {
  status { () throws(CrosspointError) in
    let operation = "crosspoint_handle_weight_gradients"
    let dispatched: HandleOfC = try object(handle, operation, "handle")
    let values = dispatched.handle.topkWeightGradients
    guard dispatched.handle.hasWeightGradients else {
      throw CrosspointError(
        .handleMisuse, operation: operation, argument: "handle", "it has none before combine_backward")
    }
    try copy(values.count, to: gradients, count, operation, "gradients") { values[$0] }
  }
}

/// Fills an array of C that must have room for as many.
private func copy<Value>(
  _ count: Int, to target: UnsafeMutablePointer<Value>?, _ room: Int64, _ operation: String, _ argument: String,
  value: (Int) -> Value
) throws(CrosspointError) {
  guard room >= Int64(count), target != nil || count == 0 else {
    throw invalid(operation, argument, "room for \(target == nil ? 0 : room); \(count) are needed")
  }
  for index in 0..<count { target![index] = value(index) }
}

@c @implementation
public func crosspoint_handle_free(_ handle: OpaquePointer?) { takeBack(handle, as: HandleOfC.self) }
