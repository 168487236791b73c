import MPI

/// Every collective of the binding gives what its definition says, for several datatypes.
func mpiCollectives(_ ranks: Ranks) throws {
  try ranks.world.barrier()
  try numbers(ranks, of: Float.self)
  try numbers(ranks, of: Double.self)
  try numbers(ranks, of: Int8.self)
  try numbers(ranks, of: Int16.self)
  try numbers(ranks, of: Int32.self)
  try numbers(ranks, of: Int64.self)
  try numbers(ranks, of: UInt8.self)
  try numbers(ranks, of: UInt16.self)
  try numbers(ranks, of: UInt32.self)
  try numbers(ranks, of: UInt64.self)
  let bits = UInt32(1) << UInt32(ranks.rank)
  let all = UInt32(1) << UInt32(ranks.count) - 1
  try ranks.expect(try ranks.world.allreduce(bits, .bitwiseOr), is: all, "bitwise or")
  try ranks.expect(try ranks.world.allreduce(all & ~bits, .bitwiseAnd), is: 0, "bitwise and")
  try raggedAlltoall(ranks)
  try raggedGatherAndReduction(ranks)
}

/// Rank r has 2·r numbers (none on rank 0), each 100·r + index; of the reduction rank r gets as many.
private func raggedGatherAndReduction(_ ranks: Ranks) throws {
  let counts = (0..<ranks.count).map { 2 * $0 }
  let expected = counts.enumerated().flatMap { rank, count in (0..<count).map { Float(100 * rank + $0) } }
  let mine = Buffer<Float>((0..<counts[ranks.rank]).map { Float(100 * ranks.rank + $0) })
  let all = Buffer<Float>(repeating: .nan, count: expected.count)
  try ranks.world.allgatherv(.init(mine.elements), into: all.elements, try Blocks(counts: counts))
  try ranks.expect(Array(all.elements), is: expected, "allgatherv")

  let home = Buffer<Float>(repeating: .nan, count: mine.elements.count)
  try ranks.world.reduceScatter(.init(all.elements), into: home.elements, counts, .sum)
  try ranks.expect(Array(home.elements), is: mine.elements.map { Float(ranks.count) * $0 }, "reduceScatter")
}

private func numbers<Element: Datatype & Numeric>(_ ranks: Ranks, of type: Element.Type) throws {
  func number(_ value: Int) throws -> Element {
    guard let element = Element(exactly: value) else { throw Unmet(description: "\(value) as \(type)") }
    return element
  }
  let world = ranks.world
  let count = ranks.count
  let mine = try number(ranks.rank + 1)
  try ranks.expect(try world.allreduce(mine, .sum), is: try number(count * (count + 1) / 2), "sum of \(type)")
  let factorial = (1...count).reduce(1, *)
  try ranks.expect(try world.allreduce(mine, .product), is: try number(factorial), "product of \(type)")
  try ranks.expect(try world.allreduce(mine, .minimum), is: try number(1), "minimum of \(type)")
  try ranks.expect(try world.allreduce(mine, .maximum), is: try number(count), "maximum of \(type)")

  for root in 0..<count {
    var values = [mine, try number(ranks.rank + 20)]
    try world.broadcast(&values, from: root)
    try ranks.expect(values, is: [try number(root + 1), try number(root + 20)], "broadcast of \(type) from \(root)")
  }

  let everybody = try (0..<count).flatMap { [try number($0), try number($0 + 10)] }
  let pair = [try number(ranks.rank), try number(ranks.rank + 10)]
  try ranks.expect(try world.allgather(pair), is: everybody, "allgather of \(type)")

  // Value 10·source + destination.
  let sent = try (0..<count).map { try number(10 * ranks.rank + $0) }
  let received = try (0..<count).map { try number(10 * $0 + ranks.rank) }
  try ranks.expect(try world.alltoall(sent), is: received, "alltoall of \(type)")
}

/// Rank s sends s + 2·d elements to rank d (so some blocks are empty), each 1000·s + 100·d + index.
private func raggedAlltoall(_ ranks: Ranks) throws {
  let count = ranks.count
  func block(from source: Int, to destination: Int) -> [Float] {
    (0..<source + 2 * destination).map { Float(1000 * source + 100 * destination + $0) }
  }
  let outgoing = (0..<count).map { block(from: ranks.rank, to: $0) }
  let incoming = (0..<count).map { block(from: $0, to: ranks.rank) }
  let sendBlocks = try Blocks(counts: outgoing.map(\.count))
  // Received in reverse order, one unused element between blocks.
  var offsets = Array(repeating: 0, count: count)
  var end = 0
  for source in (0..<count).reversed() {
    offsets[source] = end
    end += incoming[source].count + 1
  }
  let receiveBlocks = try Blocks(counts: incoming.map(\.count), offsets: offsets)
  let send = Buffer<Float>(outgoing.flatMap { $0 })

  func verify(_ received: Buffer<Float>, _ call: String) throws {
    for source in 0..<count {
      let start = offsets[source]
      let end = start + incoming[source].count
      try ranks.expect(Array(received.elements[start..<end]), is: incoming[source], "\(call) from rank \(source)")
      try ranks.expect(received[end].isNaN, "\(call) wrote past the block of rank \(source)")
    }
  }
  let blocking = Buffer<Float>(repeating: .nan, count: end)
  try ranks.world.alltoallv(.init(send.elements), sendBlocks, into: blocking.elements, receiveBlocks)
  try verify(blocking, "alltoallv")
  let started = Buffer<Float>(repeating: .nan, count: end)
  try ranks.world.ialltoallv(send, sendBlocks, into: started, receiveBlocks).wait()
  try verify(started, "ialltoallv")
}
