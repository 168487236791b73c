import MPI

/// Blocking and non-blocking messages arrive whole, statuses tell about them, receives can be given up.
func mpiMessages(_ ranks: Ranks) throws {
  let world = ranks.world
  let next = (ranks.rank + 1) % ranks.count
  let previous = (ranks.rank + ranks.count - 1) % ranks.count

  // Blocking, in pairs, shorter than the buffer.
  if ranks.count > 1 && ranks.rank < 2 {
    let peer = 1 - ranks.rank
    var values: [Double] = [0, 0, .nan]
    if ranks.rank == 0 { try world.send([1.5, 2.5], to: peer, tag: 3) }
    let status = try ranks.rank == 1 ? world.receive(into: &values, from: anySource, tag: anyTag) : nil
    if let status {
      try ranks.expect([status.source, status.tag, status.count(of: Double.self)], is: [0, 3, 2], "status")
      try ranks.expect(Array(values[..<2]), is: [1.5, 2.5], "message")
      try ranks.expect(values[2].isNaN, "the rest is untouched")
    }
  }

  // Around the ring, large enough that MPI does not buffer it; buffers are held by the requests alone.
  let large = 300_000
  let target = Buffer<Int32>(repeating: -1, count: large)
  let receive = try world.ireceive(into: target, from: previous, tag: 1)
  let send = try world.isend(Buffer<Int32>(repeating: Int32(ranks.rank), count: large), to: next, tag: 1)
  var status: Status?
  while status == nil { status = try receive.test() }
  try send.wait()
  try ranks.expect(status?.count(of: Int32.self), is: large, "elements of the large message")
  try ranks.expect(target.array.allSatisfy { $0 == previous }, "the large message came from rank \(previous)")
  try ranks.expect(try receive.wait().source, is: previous, "waiting again gives the status again")

  // Whichever comes first.
  let buffers = (0..<3).map { _ in Buffer<UInt8>(repeating: 0, count: 1) }
  let receives = try buffers.indices.map { try world.ireceive(into: buffers[$0], from: previous, tag: 10 + $0) }
  for tag in [12, 10, 11] { try world.send([UInt8(tag)], to: next, tag: tag) }
  var order: Set<Int> = []
  while let index = try Request.waitAny(receives) { order.insert(index) }
  try ranks.expect(order, is: [0, 1, 2], "each request is reported once")
  try ranks.expect(buffers.map { $0[0] }, is: [10, 11, 12], "each tag in its buffer")

  // Given up before anything came.
  let silent = try world.ireceive(into: Buffer<Float>(repeating: 0, count: 1), from: previous, tag: 99)
  try ranks.expect(try silent.test() == nil, "nothing came")
  try silent.cancel()
  try ranks.expect(try silent.wait().isCancelled, "the receive was given up")

  // Dropped before it is over: its memory must stay, so writing to it later harms nobody.
  _ = try world.ireceive(into: Buffer<Float>(repeating: 0, count: 1000), from: previous, tag: 50)
  try world.barrier()
  try world.send(Array(repeating: Float(1), count: 1000), to: next, tag: 50)
}
