// swift-format-ignore-file: AlwaysUseLowerCamelCase
// Names are those of crosspoint_xla.h.

public import CCrosspoint
import CrosspointCore
import CrosspointExchange
import CrosspointTokens
import Synchronization

/// A dispatch of one of XLA's programs, with transfers still to come.
struct DispatchOfXLA {
  let handle: HandleOfC
  /// Whether autodiff will ask for the backward pass of the dispatch.
  let hasBackward: Bool
  /// Why its combine must fail: there was no room for its rows.
  let refusal: String?
}

/// What XLA's programs have open on a fabric, and whose turn it is of the threads that run them.
final class Turn: @unchecked Sendable {
  private let lock = Mutex(())
  /// By their numbers. Those whose backward pass JAX leaves out stay.
  private var dispatches: [Int64: DispatchOfXLA] = [:]
  /// Those that ended when a transfer failed.
  private var lost: Set<Int64> = []
  private static let mostDispatches = 1000

  /// Runs a transfer while no other runs. If it fails, so do the programs that wait for it, and nothing stays open.
  func take(_ transfer: () throws(CrosspointError) -> Void) throws(CrosspointError) {
    try lock.withLock { _ throws(CrosspointError) in
      do throws(CrosspointError) {
        try transfer()
      } catch {
        lost = Set(dispatches.keys)
        dispatches.removeAll()
        throw error
      }
    }
  }

  func open(_ dispatch: DispatchOfXLA, as number: Int64) throws(CrosspointError) {
    guard dispatches.count < Self.mostDispatches else {
      throw CrosspointError(
        .handleMisuse, operation: "dispatch", argument: "handle_mem",
        "\(dispatches.count) dispatches wait for a combine or a backward pass that does not come: see docs/jax.md, Memory"
      )
    }
    dispatches[number] = dispatch
  }

  /// `nil` where there is none of that number.
  /// - Throws: `handleMisuse` where a transfer of another has failed: of that every rank knows already.
  func close(_ number: Int64, _ operation: String) throws(CrosspointError) -> DispatchOfXLA? {
    guard !lost.contains(number) else {
      throw CrosspointError(
        .handleMisuse, operation: operation, argument: "handle_mem", "it ended when another transfer failed")
    }
    return dispatches.removeValue(forKey: number)
  }
}

private let numbers = Atomic<Int64>(0)

/// By which XLA's programs know an exchange or a dispatch.
func nextNumber() -> Int64 { numbers.wrappingAdd(1, ordering: .relaxed).newValue }

@c @implementation
public func crosspoint_xla_exchange(
  _ exchange: OpaquePointer?, _ number: UnsafeMutablePointer<Int64>?
) -> crosspoint_status {
  status { () throws(CrosspointError) in
    let operation = "crosspoint_xla_exchange"
    let owner: ExchangeOfC = try object(exchange, operation, "exchange")
    try place(number, operation, "number").pointee = owner.number
  }
}

@c @implementation
public func crosspoint_xla_dispatch(_ frame: UnsafeMutablePointer<crosspoint_xla_frame>?) -> OpaquePointer? {
  transfer(frame, "dispatch") { frame, exchange throws(CrosspointError) in
    let (experts, room) = (frame.argument(1), frame.result(0))
    var tokens = frame.argument(0).rows
    var routing = crosspoint_routing.ofThisVersion
    routing.experts = UnsafePointer(experts.elements(Int32.self))
    routing.weights = UnsafePointer(frame.argument(2).elements(Float.self))
    routing.tokens = experts.dimensions[0]
    routing.top_k = Int32(experts.dimensions[1])
    if frame.arguments.count > 4 { routing.labels = UnsafePointer(frame.argument(4).elements(Int32.self)) }
    var made: OpaquePointer?
    try check(crosspoint_dispatch(address(of: exchange), &tokens, &routing, &made))
    let handle: HandleOfC = try object(made, "dispatch", "handle")
    takeBack(made, as: HandleOfC.self)

    let (count, capacity) = (handle.handle.rows.rows, Int(room.dimensions[0]))
    if count <= capacity {
      room.fill(with: UnsafeRawBufferPointer(handle.handle.rows.bytes))
    } else {
      // NaN in any type.
      room.bytes.initializeMemory(as: UInt8.self, repeating: 0xff)
    }
    let inUse = UnsafeMutableBufferPointer<Float>(start: frame.result(1).elements(Float.self), count: capacity)
    for slot in inUse.indices { inUse[slot] = slot < count ? 1 : 0 }
    let rowsPerExpert = frame.result(3).elements(Int32.self)
    for (expert, rows) in handle.handle.rowsPerExpert.enumerated() { rowsPerExpert![expert] = Int32(rows) }
    let number = nextNumber()
    frame.result(2).bytes.storeBytes(of: number, as: Int64.self)
    let dispatch = DispatchOfXLA(
      handle: handle, hasBackward: try frame.attribute("has_backward") != 0,
      refusal: count > capacity ? "\(capacity); \(count) rows have come" : nil)
    try exchange.turn.open(dispatch, as: number)
  }
}

@c @implementation
public func crosspoint_xla_combine(_ frame: UnsafeMutablePointer<crosspoint_xla_frame>?) -> OpaquePointer? {
  transfer(frame, "combine") { frame, exchange throws(CrosspointError) in
    let (number, dispatch) = try frame.take(from: exchange, .combine)
    let (owner, handle) = (address(of: exchange), address(of: dispatch.handle))
    if let refusal = dispatch.refusal {
      try check(
        crosspoint_exchange_refuse(owner, handle, CROSSPOINT_COMBINE, "recv_capacity_per_rank", refusal))
    }
    var outputs = frame.argument(1).rows(of: dispatch)
    var y = frame.result(0).rows
    try check(crosspoint_combine(owner, handle, &outputs, &y))
    frame.result(1).bytes.storeBytes(of: number, as: Int64.self)
    if try frame.attribute("has_backward") != 0 { try exchange.turn.open(dispatch, as: number) }
  }
}

@c @implementation
public func crosspoint_xla_combine_backward(_ frame: UnsafeMutablePointer<crosspoint_xla_frame>?) -> OpaquePointer? {
  transfer(frame, "combineBackward") { frame, exchange throws(CrosspointError) in
    let (number, dispatch) = try frame.take(from: exchange, .combineBackward)
    var (gradient, outputs) = (frame.argument(1).rows, frame.result(0).rows)
    try check(
      crosspoint_combine_backward(address(of: exchange), address(of: dispatch.handle), &gradient, &outputs))
    frame.result(0).fill(with: UnsafeRawBufferPointer(dispatch.handle.outputGradients.bytes))
    frame.result(1).fill()
    if dispatch.hasBackward { try exchange.turn.open(dispatch, as: number) }
  }
}

@c @implementation
public func crosspoint_xla_dispatch_backward(_ frame: UnsafeMutablePointer<crosspoint_xla_frame>?) -> OpaquePointer? {
  transfer(frame, "dispatchBackward") { frame, exchange throws(CrosspointError) in
    let (_, dispatch) = try frame.take(from: exchange, .dispatchBackward)
    let handle = address(of: dispatch.handle)
    var (rows, tokens) = (frame.argument(1).rows(of: dispatch), frame.result(0).rows)
    try check(crosspoint_dispatch_backward(address(of: exchange), handle, &rows, &tokens))
    let weights = frame.result(1)
    try check(crosspoint_handle_weight_gradients(handle, weights.elements(Float.self), weights.count))
    frame.result(2).fill()
  }
}

/// Runs a transfer, while no other of its fabric runs: what XLA finds independent it may run at once.
/// - Returns: an error of XLA's; `nil` where all is well.
private func transfer(
  _ frame: UnsafeMutablePointer<crosspoint_xla_frame>?, _ operation: String,
  _ body: (crosspoint_xla_frame, ExchangeOfC) throws(CrosspointError) -> Void
) -> OpaquePointer? {
  guard let frame = frame?.pointee else { return nil }
  if let asked = frame.extensions, asked.pointee.type == CROSSPOINT_XLA_METADATA {
    asked.withMemoryRebound(to: crosspoint_xla_metadata_extension.self, capacity: 1) { asked in
      asked.pointee.metadata.pointee.version.major_version = CROSSPOINT_XLA_MAJOR
      asked.pointee.metadata.pointee.version.minor_version = CROSSPOINT_XLA_MINOR
    }
    return nil
  }
  do throws(CrosspointError) {
    guard let exchange = ExchangeOfC.numbered(try frame.attribute("exchange")) else {
      throw CrosspointError(.handleMisuse, operation: operation, argument: "exchange", "it has been freed")
    }
    try exchange.turn.take { () throws(CrosspointError) in try body(frame, exchange) }
    return nil
  } catch {
    return (error.isAgreed ? "on every rank: \(error)" : "\(error)").withCString { text in
      var description = crosspoint_xla_error_description()
      description.size = MemoryLayout<crosspoint_xla_error_description>.size
      description.message = text
      description.code = CROSSPOINT_XLA_INTERNAL
      return frame.api.pointee.create_error(&description)
    }
  }
}

/// Of an object that lives through the call.
private func address(of object: AnyObject) -> OpaquePointer {
  OpaquePointer(Unmanaged.passUnretained(object).toOpaque())
}

extension crosspoint_xla_frame {
  fileprivate func argument(_ index: Int) -> crosspoint_xla_buffer { arguments.buffers[index]!.pointee }
  fileprivate func result(_ index: Int) -> crosspoint_xla_buffer { results.buffers[index]!.pointee }

  /// - Throws: `invalidArgument` where there is none of that name.
  fileprivate func attribute(_ name: String) throws(CrosspointError) -> Int64 {
    for index in 0..<Int(attributes.count) where attributes.kinds[index] == CROSSPOINT_XLA_SCALAR {
      let found = attributes.names[index]!.pointee
      if UnsafeRawBufferPointer(start: found.start, count: found.length).elementsEqual(name.utf8) {
        return attributes.scalars[index]!.pointee.value.load(as: Int64.self)
      }
    }
    throw invalid("crosspoint_xla", name, "the attribute is missing")
  }

  /// The dispatch that the first argument names; a transfer that another follows puts it back.
  /// - Throws: `handleMisuse` where there is none: on every rank, but for copies per node, whose transfers begin within the node
  ///   of a handle.
  fileprivate func take(
    from exchange: ExchangeOfC, _ kind: TransferKind
  ) throws(CrosspointError) -> (number: Int64, DispatchOfXLA) {
    let number = UnsafeRawBufferPointer(argument(0).bytes).loadUnaligned(as: Int64.self)
    if let dispatch = try exchange.turn.close(number, "\(kind.operation)") { return (number, dispatch) }
    let problem = CrosspointError(
      .handleMisuse, operation: "\(kind.operation)", argument: "handle_mem", "its dispatch has had all its transfers")
    if case .perNode = exchange.exchange.options.copies { throw problem }
    try PendingOfC.refuse(exchange, kind, nil, problem).finish()
    throw problem
  }
}

extension crosspoint_xla_buffer {
  fileprivate var count: Int64 { (0..<Int(rank)).reduce(1) { $0 * dimensions[$1] } }

  /// Of numbers of 4 bytes, or of bfloat16, or of bytes.
  fileprivate var bytes: UnsafeMutableRawBufferPointer {
    UnsafeMutableRawBufferPointer(start: data, count: Int(count) * width)
  }

  private var width: Int {
    switch type {
    case CROSSPOINT_XLA_UINT8: 1
    case CROSSPOINT_XLA_BFLOAT16: 2
    default: 4
    }
  }

  fileprivate func elements<Element>(_ type: Element.Type) -> UnsafeMutablePointer<Element>? {
    data?.assumingMemoryBound(to: type)
  }

  fileprivate var rows: crosspoint_rows {
    var rows = crosspoint_rows.ofThisVersion
    (rows.data, rows.rows, rows.columns) = (data, dimensions[0], dimensions[1])
    rows.type = type == CROSSPOINT_XLA_BFLOAT16 ? CROSSPOINT_BFLOAT16 : CROSSPOINT_FLOAT32
    return rows
  }

  /// Those of a dispatch, without what lies behind them.
  fileprivate func rows(of dispatch: DispatchOfXLA) -> crosspoint_rows {
    var rows = rows
    rows.rows = min(rows.rows, Int64(dispatch.handle.handle.rows.rows))
    return rows
  }

  /// Zeros behind.
  fileprivate func fill(with front: UnsafeRawBufferPointer = UnsafeRawBufferPointer(start: nil, count: 0)) {
    bytes.copyMemory(from: front)
    UnsafeMutableRawBufferPointer(rebasing: bytes[front.count...]).initializeMemory(as: UInt8.self, repeating: 0)
  }
}
