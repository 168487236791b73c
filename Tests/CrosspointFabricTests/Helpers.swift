import CrosspointCore
import CrosspointFabric

/// Sends `lengths[p]` bytes of value `rank · 16 + p` to each rank p, expects `expected[p]`, and returns what came.
func exchangeBytes(_ fabric: any Fabric, send lengths: [Int], receive expected: [Int]) throws -> [[UInt8]] {
  let send = lengths.enumerated().map { peer, length in
    let block = UnsafeMutableRawBufferPointer.allocate(byteCount: length, alignment: 1)
    block.initializeMemory(as: UInt8.self, repeating: UInt8(fabric.rank * 16 + peer))
    return block
  }
  let receive = expected.map { UnsafeMutableRawBufferPointer.allocate(byteCount: $0, alignment: 1) }
  defer {
    for block in send + receive { block.deallocate() }
  }
  try fabric.exchange(send: send.map { UnsafeRawBufferPointer($0) }, receive: receive, operation: "test")
  return receive.map(Array.init)
}

/// `count` bytes to and from every rank.
func exchangeBytes(_ fabric: any Fabric, count: Int) throws -> [[UInt8]] {
  let lengths = Array(repeating: count, count: fabric.rankCount)
  return try exchangeBytes(fabric, send: lengths, receive: lengths)
}

extension Fabric {
  func sum(_ values: [Float]) throws -> [Float] {
    var values = values
    try values.withUnsafeMutableBufferPointer { try allreduce($0, operation: "sum") }
    return values
  }
}

/// What each rank threw; `nil` where it returned.
func errors<T>(_ results: [Result<T, any Error>]) -> [CrosspointError?] {
  results.map { result in
    guard case .failure(let error) = result else { return nil }
    return error as? CrosspointError
  }
}
