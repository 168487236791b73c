import CrosspointCore
import CrosspointExchange
import CrosspointFabric
import CrosspointTokens

extension BudgetPolicy {
  /// Times link and codec; every rank keeps what the slowest of all needs. Collective.
  func measureSpeed(_ agreement: Agreement) throws(CrosspointError) {
    let operation: StaticString = "ExpertExchange.init"
    var mine: [Double] = []
    var buffer: BufferPool.Buffer?
    defer { if let buffer { pool.release(buffer) } }
    var failure: CrosspointError?
    let (ranks, block) = (fabric.rankCount, 1 << 18)
    do throws(CrosspointError) {
      mine = try sampler.timeCodes()
      buffer = try pool.lease(bytes: (ranks + 1) * block)
    } catch {
      failure = error
    }
    try agreement.settle(failure, operation: operation)
    mine.append(try timeLink(buffer!.base, block: block, operation: operation))

    var all = [Double](repeating: 0, count: ranks * mine.count)
    try mine.withUnsafeBufferPointer { mine throws(CrosspointError) in
      try all.withUnsafeMutableBufferPointer { all throws(CrosspointError) in
        try fabric.allgather(
          UnsafeRawBufferPointer(mine), into: UnsafeMutableRawBufferPointer(all), operation: operation)
      }
    }
    let slowest = mine.indices.map { index in (0..<ranks).reduce(0) { max($0, all[$1 * mine.count + index]) } }
    state.speed = PolicySpeed(
      linkSecondsPerByte: slowest.last!, codecSecondsPerByte: Array(slowest.dropLast()))
  }

  /// Seconds per byte that this rank sends, at best of some exchanges.
  private func timeLink(
    _ base: UnsafeMutableRawPointer, block: Int, operation: StaticString
  ) throws(CrosspointError) -> Double {
    let ranks = fabric.rankCount
    guard ranks > 1 else { return 0 }
    _ = base.initializeMemory(as: UInt8.self, repeating: 0, count: (ranks + 1) * block)
    let send = (0..<ranks).map {
      UnsafeRawBufferPointer(start: base + ranks * block, count: $0 == fabric.rank ? 0 : block)
    }
    let receive = (0..<ranks).map {
      UnsafeMutableRawBufferPointer(start: base + $0 * block, count: $0 == fabric.rank ? 0 : block)
    }
    var least = Double.infinity
    for _ in 0..<5 {
      try fabric.barrier(operation: operation)
      var watch = Stopwatch()
      try fabric.exchange(send: send, receive: receive, operation: operation)
      least = min(least, watch.lap())
    }
    return least / Double((ranks - 1) * block)
  }
}
