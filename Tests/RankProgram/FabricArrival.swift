import CrosspointFabric
import Glibc

/// A block is reported while a later one is still missing: the last rank sends only once it hears that its peers have
/// got everything else.
func fabricArrival(_ ranks: Ranks) throws {
  let fabric = try ranks.fabric()
  let late = ranks.last
  var reported = 0
  let blocks = RaggedBlocks(
    rank: ranks.rank, sizes: Array(repeating: Array(repeating: 8, count: ranks.count), count: ranks.count), round: 1)
  defer { blocks.deallocate() }
  if ranks.rank == late {
    for peer in 0..<late {
      var news: [Int32] = [0]
      try ranks.world.receive(into: &news, from: peer, tag: 1)
    }
  }
  var failure: (any Error)?
  try fabric.exchange(send: blocks.send, receive: blocks.incoming, operation: "exchange") { source in
    reported += 1
    guard ranks.rank != late, reported == ranks.count - 1 else { return }
    do { try ranks.world.send([Int32(source)], to: late, tag: 1) } catch { failure = error }
  }
  if let failure { throw failure }
  try ranks.expect(reported, is: ranks.count, "blocks reported")
}
