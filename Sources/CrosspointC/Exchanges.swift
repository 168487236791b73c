// swift-format-ignore-file: AlwaysUseLowerCamelCase
// Names are those of crosspoint.h.

public import CCrosspoint
import CrosspointCore
import CrosspointExchange
import CrosspointPolicy
import CrosspointTokens
import Synchronization

#if canImport(FoundationEssentials)
  import FoundationEssentials
#else
  import Foundation
#endif

/// An exchange as C holds it.
final class ExchangeOfC {
  let exchange: ExpertExchange
  /// For rows that C has gaps between.
  let pool = BufferPool()
  let options: UnsafeMutablePointer<CChar>
  /// By which XLA's programs know it: they may outlive it.
  let number: Int64
  /// Whose turn it is on its fabric, of XLA's threads.
  let turn: Turn

  init(_ exchange: ExpertExchange, turn: Turn) {
    self.exchange = exchange
    self.turn = turn
    options = textOfC("\(exchange.options)")
    number = nextNumber()
    let entry = Entry(exchange: self)
    Self.living.withLock { [number] in $0[number] = entry }
  }

  deinit {
    Self.living.withLock { [number] in $0[number] = nil }
    options.deallocate()
  }

  /// `nil` where it has been freed.
  static func numbered(_ number: Int64) -> ExchangeOfC? { living.withLock { $0[number] }?.exchange }

  private struct Entry: @unchecked Sendable { weak var exchange: ExchangeOfC? }

  private static let living = Mutex<[Int64: Entry]>([:])
}

@c @implementation
public func crosspoint_exchange_create(
  _ fabric: OpaquePointer?, _ experts: Int64, _ hidden: Int64, _ layer: Int32, _ options: UnsafePointer<CChar>?,
  _ exchange: UnsafeMutablePointer<OpaquePointer?>?
) -> crosspoint_status {
  status { () throws(CrosspointError) in
    let operation = "crosspoint_exchange_create"
    let owner: RankOfC = try object(fabric, operation, "fabric")
    let exchange = try place(exchange, operation, "exchange")
    // Every rank gets to know what one cannot read.
    let settings = try owner.fabric.together(operation: "ExpertExchange.init") { () throws(CrosspointError) in
      let settings = try ExchangeOptions(named: options.map { String(cString: $0) } ?? "")
      if case .lowRank = settings.compensation {
        throw invalid(
          operation, "compensation", "\(settings.compensation) learns, which C cannot make it: use identity")
      }
      return (try ExpertLayout(experts: Int(experts), hidden: Int(hidden)), settings)
    }
    exchange.pointee = handOut(
      ExchangeOfC(
        try ExpertExchange(fabric: owner.fabric, layout: settings.0, options: settings.1, layer: Int(layer)),
        turn: owner.turn))
  }
}

@c @implementation
public func crosspoint_exchange_free(_ exchange: OpaquePointer?) { takeBack(exchange, as: ExchangeOfC.self) }

@c @implementation
public func crosspoint_exchange_local_experts(
  _ exchange: OpaquePointer?, _ first: UnsafeMutablePointer<Int64>?, _ count: UnsafeMutablePointer<Int64>?
) -> crosspoint_status {
  status { () throws(CrosspointError) in
    let owner: ExchangeOfC = try object(exchange, "crosspoint_exchange_local_experts", "exchange")
    first?.pointee = Int64(owner.exchange.localExperts.lowerBound)
    count?.pointee = Int64(owner.exchange.localExperts.count)
  }
}

@c @implementation
public func crosspoint_exchange_options(_ exchange: OpaquePointer?) -> UnsafePointer<CChar>? {
  guard let owner: ExchangeOfC = try? object(exchange, "crosspoint_exchange_options", "exchange") else { return nil }
  return UnsafePointer(owner.options)
}

@c @implementation
public func crosspoint_exchange_statistics(
  _ exchange: OpaquePointer?, _ statistics: UnsafeMutablePointer<crosspoint_statistics>?
) -> crosspoint_status {
  status { () throws(CrosspointError) in
    let operation = "crosspoint_exchange_statistics"
    let owner: ExchangeOfC = try object(exchange, operation, "exchange")
    let target = try place(struct: statistics, operation, "statistics")
    target.pointee = crosspoint_statistics(owner.exchange)
  }
}

@c @implementation
public func crosspoint_exchange_reset_statistics(_ exchange: OpaquePointer?) -> crosspoint_status {
  status { () throws(CrosspointError) in
    let owner: ExchangeOfC = try object(exchange, "crosspoint_exchange_reset_statistics", "exchange")
    owner.exchange.statistics.reset()
  }
}

@c @implementation
public func crosspoint_exchange_settle(_ exchange: OpaquePointer?) -> crosspoint_status {
  status { () throws(CrosspointError) in
    let owner: ExchangeOfC = try object(exchange, "crosspoint_exchange_settle", "exchange")
    try owner.exchange.settle()
  }
}

@c @implementation
public func crosspoint_exchange_set_adapts(_ exchange: OpaquePointer?, _ adapts: Int32) -> crosspoint_status {
  status { () throws(CrosspointError) in
    let owner: ExchangeOfC = try object(exchange, "crosspoint_exchange_set_adapts", "exchange")
    owner.exchange.adapts = adapts != 0
  }
}

@c @implementation
public func crosspoint_exchange_save(
  _ exchange: OpaquePointer?, _ text: UnsafeMutablePointer<CChar>?, _ capacity: Int64,
  _ needed: UnsafeMutablePointer<Int64>?
) -> crosspoint_status {
  status { () throws(CrosspointError) in
    let operation = "crosspoint_exchange_save"
    let owner: ExchangeOfC = try object(exchange, operation, "exchange")
    let encoder = JSONEncoder()
    encoder.outputFormatting = .sortedKeys
    guard let state = try? encoder.encode(owner.exchange.state) else {
      preconditionFailure("every number of a state is finite")
    }
    needed?.pointee = Int64(state.count) + 1
    guard let text else { return }
    guard capacity > Int64(state.count) else {
      throw invalid(operation, "capacity", "\(capacity) bytes; \(state.count + 1) are needed")
    }
    let bytes = UnsafeMutableRawBufferPointer(start: text, count: state.count + 1)
    bytes.copyBytes(from: state)
    bytes[state.count] = 0
  }
}

@c @implementation
public func crosspoint_exchange_restore(_ exchange: OpaquePointer?, _ text: UnsafePointer<CChar>?) -> crosspoint_status
{
  status { () throws(CrosspointError) in
    let operation = "crosspoint_exchange_restore"
    let owner: ExchangeOfC = try object(exchange, operation, "exchange")
    guard let text else { throw invalid(operation, "text", "it is NULL") }
    guard let state = try? JSONDecoder().decode(ExchangeState.self, from: Data(String(cString: text).utf8)) else {
      throw CrosspointError(.checkpointMismatch, operation: operation, argument: "text", "it is no saved state")
    }
    try owner.exchange.restore(state)
  }
}

extension crosspoint_statistics {
  fileprivate init(_ exchange: ExpertExchange) {
    self = .ofThisVersion
    let sums = exchange.statistics
    dispatches = Int64(sums.dispatches)
    rows_routed = Int64(sums.rowsRouted)
    rows_sent = Int64(sums.rowsSent)
    func byTransfer(_ bytes: (LayerStatistics.Traffic) -> Int) -> (Int64, Int64, Int64, Int64) {
      (
        Int64(bytes(sums[.dispatch])), Int64(bytes(sums[.combine])), Int64(bytes(sums[.combineBackward])),
        Int64(bytes(sums[.dispatchBackward]))
      )
    }
    wire_bytes = byTransfer(\.wireBytes)
    node_bytes = byTransfer(\.nodeBytes)
    uncompressed_bytes = byTransfer(\.uncompressedBytes)
    local_bytes = byTransfer(\.localBytes)
    residual_squared = sums.residualSquared
    token_squared = sums.tokenSquared
    hash_seconds = sums.seconds.hash
    cluster_seconds = sums.seconds.cluster
    encode_seconds = sums.seconds.encode
    skew_seconds = sums.seconds.skew
    wait_seconds = sums.seconds.wait
    decode_seconds = sums.seconds.decode
    policy_seconds = sums.seconds.policy
    slowest_rank = Int64(sums.slowestRank)
    peak_buffer_bytes = Int64(exchange.peakBufferBytes)
  }
}
