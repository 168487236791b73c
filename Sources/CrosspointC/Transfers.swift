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
  let tokens: Int
  /// What ``ExpertExchange/combineBackward(_:_:meanwhile:)`` gave; without rows before.
  var outputGradients: TokenBatch

  init(_ handle: DispatchHandle, tokens: Int) throws(CrosspointError) {
    self.handle = handle
    self.tokens = tokens
    outputGradients = try none(handle.rows.hidden)
  }
}

private func none(_ hidden: Int) throws(CrosspointError) -> TokenBatch {
  try TokenBatch(viewing: UnsafeMutableBufferPointer(start: nil, count: 0), hidden: hidden)
}

private func nowhere(_ experts: Int) throws(CrosspointError) -> Routing {
  try Routing(topkIndices: [], topkWeights: [], topK: 1, experts: experts)
}

/// Arguments that are wrong on one rank must not keep it from a transfer that the others have begun: it takes part with
/// arguments that are right, and fails with the true cause, as work of its own during the transfer may.
private func refuse(
  _ problem: CrosspointError, _ kind: TransferKind, _ exchange: ExpertExchange, _ dispatched: HandleOfC?
) throws(CrosspointError) -> Never {
  func fail() throws(CrosspointError) -> Bool { throw problem }
  switch (kind, dispatched) {
  case (.combine, let dispatched?):
    _ = try exchange.combine(TokenBatch(viewing: dispatched.handle.rows), dispatched.handle, meanwhile: fail)
  case (.combineBackward, let dispatched?):
    let zeros = try TokenBatch(rows: dispatched.tokens, hidden: exchange.layout.hidden)
    _ = try exchange.combineBackward(zeros, dispatched.handle, meanwhile: fail)
  case (.dispatchBackward, let dispatched?):
    _ = try exchange.dispatchBackward(TokenBatch(viewing: dispatched.handle.rows), dispatched.handle, meanwhile: fail)
  case (_, nil), (.dispatch, _):
    let layout = exchange.layout
    _ = try exchange.dispatch(none(layout.hidden), nowhere(layout.experts), meanwhile: fail)
  }
  throw problem
}

@c @implementation
public func crosspoint_exchange_refuse(
  _ exchange: OpaquePointer?, _ handle: OpaquePointer?, _ transfer: Int32, _ argument: UnsafePointer<CChar>?,
  _ message: UnsafePointer<CChar>?
) -> crosspoint_status {
  status { () throws(CrosspointError) in
    let operation = "crosspoint_exchange_refuse"
    let owner: ExchangeOfC = try object(exchange, operation, "exchange")
    guard let kind = TransferKind(rawValue: Int(transfer)) else { throw invalid(operation, "transfer", "\(transfer)") }
    let dispatched: HandleOfC? = kind == .dispatch ? nil : try object(handle, operation, "handle")
    try refuse(
      invalid(
        "\(kind.operation)", argument.map { String(cString: $0) } ?? "", message.map { String(cString: $0) } ?? ""),
      kind, owner.exchange, dispatched)
  }
}

@c @implementation
public func crosspoint_dispatch(
  _ exchange: OpaquePointer?, _ tokens: UnsafePointer<crosspoint_rows>?,
  _ routing: UnsafePointer<crosspoint_routing>?, _ handle: UnsafeMutablePointer<OpaquePointer?>?
) -> crosspoint_status {
  status { () throws(CrosspointError) in
    let owner: ExchangeOfC = try object(exchange, "dispatch", "exchange")
    let handle = try place(handle, "dispatch", "handle")
    var batch: TokenBatch?
    let plan: Routing
    do throws(CrosspointError) {
      plan = try CrosspointC.routing(routing, experts: owner.exchange.layout.experts)
      batch = try input(tokens, "dispatch", "tokens", pool: owner.pool)
    } catch {
      try refuse(error, .dispatch, owner.exchange, nil)
    }
    let dispatched = try owner.exchange.dispatch(batch.take()!, plan)
    handle.pointee = handOut(try HandleOfC(dispatched, tokens: plan.tokens))
  }
}

@c @implementation
public func crosspoint_combine(
  _ exchange: OpaquePointer?, _ handle: OpaquePointer?, _ outputs: UnsafePointer<crosspoint_rows>?,
  _ result: UnsafePointer<crosspoint_rows>?
) -> crosspoint_status {
  status { () throws(CrosspointError) in
    let owner: ExchangeOfC = try object(exchange, "combine", "exchange")
    let dispatched: HandleOfC = try object(handle, "combine", "handle")
    var rows: TokenBatch?
    var y: ResultRows?
    do throws(CrosspointError) {
      y = try ResultRows(result, "combine", "result", pool: owner.pool)
      rows =
        outputs == nil ? try dispatched.handle.outputs() : try input(outputs, "combine", "outputs", pool: owner.pool)
    } catch {
      try refuse(error, .combine, owner.exchange, dispatched)
    }
    let target = y.take()!
    try owner.exchange.combine(rows.take()!, dispatched.handle, into: target.batch)
    target.deliver()
  }
}

@c @implementation
public func crosspoint_combine_backward(
  _ exchange: OpaquePointer?, _ handle: OpaquePointer?, _ resultGradient: UnsafePointer<crosspoint_rows>?,
  _ outputGradients: UnsafeMutablePointer<crosspoint_rows>?
) -> crosspoint_status {
  status { () throws(CrosspointError) in
    let owner: ExchangeOfC = try object(exchange, "combineBackward", "exchange")
    let dispatched: HandleOfC = try object(handle, "combineBackward", "handle")
    var dy: TokenBatch?
    let target: UnsafeMutablePointer<crosspoint_rows>
    do throws(CrosspointError) {
      target = try place(struct: outputGradients, "combineBackward", "output_gradients")
      dy = try input(resultGradient, "combineBackward", "result_gradient", pool: owner.pool)
    } catch {
      try refuse(error, .combineBackward, owner.exchange, dispatched)
    }
    dispatched.outputGradients = try owner.exchange.combineBackward(dy.take()!, dispatched.handle)
    show(dispatched.outputGradients, in: target)
  }
}

@c @implementation
public func crosspoint_dispatch_backward(
  _ exchange: OpaquePointer?, _ handle: OpaquePointer?, _ rowGradients: UnsafePointer<crosspoint_rows>?,
  _ tokenGradients: UnsafePointer<crosspoint_rows>?
) -> crosspoint_status {
  status { () throws(CrosspointError) in
    let owner: ExchangeOfC = try object(exchange, "dispatchBackward", "exchange")
    let dispatched: HandleOfC = try object(handle, "dispatchBackward", "handle")
    var rows: TokenBatch?
    var dx: ResultRows?
    do throws(CrosspointError) {
      dx = try ResultRows(tokenGradients, "dispatchBackward", "token_gradients", pool: owner.pool)
      rows =
        rowGradients == nil
        ? try dispatched.handle.rowGradients()
        : try input(rowGradients, "dispatchBackward", "row_gradients", pool: owner.pool)
    } catch {
      try refuse(error, .dispatchBackward, owner.exchange, dispatched)
    }
    let target = dx.take()!
    try owner.exchange.dispatchBackward(rows.take()!, dispatched.handle, into: target.batch)
    target.deliver()
  }
}

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
