import MPI

/// Duplicates and parts hold the ranks they should, and messages of one never reach another.
func mpiCommunicators(_ ranks: Ranks) throws {
  let copy = try ranks.world.duplicate()
  try ranks.expect([copy.rank, copy.size], is: [ranks.rank, ranks.count], "duplicate")

  // Even ranks in order, odd ranks in reverse.
  let odd = ranks.rank % 2
  let part = try ranks.world.split(color: odd, key: odd == 0 ? 0 : -ranks.rank)
  let members = (0..<ranks.count).filter { $0 % 2 == odd }
  let order = odd == 0 ? members : members.reversed()
  try ranks.expect(part?.size, is: order.count, "size of the part")
  try ranks.expect(part?.rank, is: order.firstIndex(of: ranks.rank), "rank in the part")
  try ranks.expect(try part?.allgather(Int64(ranks.rank)), is: order.map(Int64.init), "members")

  let first = try ranks.world.split(color: ranks.rank == 0 ? 7 : nil)
  try ranks.expect(first?.size, is: ranks.rank == 0 ? 1 : nil, "a part that one rank joins")

  // One machine runs all ranks of a test.
  let node = try ranks.world.splitShared()
  try ranks.expect([node.rank, node.size], is: [ranks.rank, ranks.count], "ranks of this node")

  // The same source and tag on two communicators, received in the other order.
  let peer = (ranks.rank + 1) % ranks.count
  let source = (ranks.rank + ranks.count - 1) % ranks.count
  let requests = [
    try ranks.world.isend(Buffer<Int32>([1]), to: peer, tag: 5), try copy.isend(Buffer<Int32>([2]), to: peer, tag: 5),
  ]
  var value: [Int32] = [0]
  try copy.receive(into: &value, from: source, tag: 5)
  try ranks.expect(value, is: [2], "message of the duplicate")
  try ranks.world.receive(into: &value, from: source, tag: 5)
  try ranks.expect(value, is: [1], "message of the world")
  try Request.waitAll(requests)
}
