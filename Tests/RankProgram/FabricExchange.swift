import CrosspointCore
import CrosspointFabric

/// Random ragged blocks arrive whole and in place, round after round.
func fabricExchange(_ ranks: Ranks) throws {
  try exchangeRounds(ranks, on: try ranks.fabric(), rounds: 30, largest: 1 << 17)
}

/// The same with several blocks per rank.
func fabricPieces(_ ranks: Ranks) throws {
  for (count, limit) in [(2, 1 << 30), (5, 1 << 30), (3, 16)] {
    let fabric = try ranks.fabric(chunkLimit: limit)
    try exchangeRounds(ranks, on: fabric, rounds: 20, largest: limit == 16 ? 100 : 1 << 15, pieces: count)
  }
}

/// The same with messages cut into tiny chunks, and with block sizes around multiples of the limit.
func fabricSplit(_ ranks: Ranks) throws {
  for limit in [1, 7, 64] {
    try exchangeRounds(ranks, on: try ranks.fabric(chunkLimit: limit), rounds: 20, largest: 40 * limit)
  }
  let limit = 16
  let fabric = try ranks.fabric(chunkLimit: limit)
  for size in [0, 1, limit - 1, limit, limit + 1, 2 * limit, 3 * limit - 1] {
    let row = Array(repeating: size, count: ranks.count)
    let blocks = RaggedBlocks(
      rank: ranks.rank, sizes: Array(repeating: row, count: ranks.count), round: size, memory: fabric.sharedMemory)
    try exchange(ranks, blocks, on: fabric)
  }
  let refused = try ranks.expectError(CrosspointError.self, "a limit of zero") { _ = try ranks.fabric(chunkLimit: 0) }
  try ranks.expect(refused.code, is: .invalidArgument, "code")
}

/// Blocks about as long as a mailbox, one of them and many, in memory that is shared and in memory that is not: they lie in
/// the mailbox, are taken from their owner's memory or come in messages, side by side.
func fabricMailboxes(_ ranks: Ranks) throws {
  let fabric = try ranks.fabric()
  for (count, about) in [
    (1, 8192 - 16), (2, 8192 - 32), (3, 2 * 8192), (511, 8192), (512, 600), (513, 600), (700, 20_000),
  ] {
    for size in [about - 9, about - 8, about - 1, about, about + 1, about + 8, 0] {
      for shift in 0..<2 {
        let row = (0..<ranks.count).map { $0 % 3 == 2 ? 0 : size }
        let blocks = RaggedBlocks(
          rank: ranks.rank, sizes: Array(repeating: row, count: ranks.count), round: size + shift,
          memory: fabric.sharedMemory)
        try exchange(ranks, blocks, on: fabric, pieces: count)
      }
    }
  }
}

/// Thousands of exchanges in sequence, of blocks small and large, without any other message between them: none is ever taken
/// for another's.
func fabricSequence(_ ranks: Ranks) throws {
  let fabric = try ranks.fabric()
  for round in 0..<2000 {
    let blocks = RaggedBlocks(
      rank: ranks.rank, count: ranks.count, largest: round % 50 == 0 ? 1 << 15 : 200, round: round,
      memory: fabric.sharedMemory)
    try exchange(ranks, blocks, on: fabric, pieces: round % 3 + 1)
  }
}

private func exchangeRounds(_ ranks: Ranks, on fabric: any Fabric, rounds: Int, largest: Int, pieces: Int = 1) throws {
  for round in 0..<rounds {
    let blocks = RaggedBlocks(
      rank: ranks.rank, count: ranks.count, largest: largest, round: round, memory: fabric.sharedMemory)
    try exchange(ranks, blocks, on: fabric, pieces: pieces)
  }
}

/// Each block is checked at the moment it is reported, and each must be reported once.
private func exchange(_ ranks: Ranks, _ blocks: RaggedBlocks, on fabric: any Fabric, pieces: Int = 1) throws {
  defer { blocks.deallocate() }
  var reported: [Int] = []
  var flaw: String?
  let (send, receive) = blocks.pieces(pieces)
  try fabric.exchange(send: send, receive: receive, operation: "exchange") { source in
    reported.append(source)
    flaw = flaw ?? blocks.flaw(from: source)
  }
  try ranks.expect(flaw == nil, flaw ?? "")
  try ranks.expect(reported.sorted(), is: Array(0..<ranks.count), "blocks reported")
}

/// Blocks that may be shorter than the memory for them arrive whole, cut into messages or not; one that is too long or too
/// short is caught.
func fabricSlack(_ ranks: Ranks) throws {
  for limit in [7, 64, 1 << 30] {
    let fabric = try ranks.fabric(chunkLimit: limit)
    let step = min(limit, 9973)
    let most = limit > step ? 100_000 : 5 * limit
    for round in 0..<40 {
      let sizes = (0..<ranks.count).map { source in
        (0..<ranks.count).map { ($0 * 3 + source * 5 + round) * most / 40 % (most + 1) / step * step + round % 3 - 1 }
      }.map { $0.map { min(most, max(0, $0)) } }
      try exchangeWithSlack(ranks, on: fabric, sizes, most: most, slack: most, round: round)
    }
  }
  for (sent, slack) in [(64, 10), (65, 10), (53, 10), (100, 200), (0, 10), (10_000, 10)] {
    let most = 64
    guard !(most - slack...most).contains(sent), slack <= most else { continue }
    let fabric = try ranks.fabric(chunkLimit: 16)
    var sizes = Array(repeating: Array(repeating: most - slack / 2, count: ranks.count), count: ranks.count)
    sizes[ranks.last][0] = sent
    func exchange() throws {
      try exchangeWithSlack(ranks, on: fabric, sizes, most: most, slack: slack, round: sent)
    }
    if ranks.rank == 0 {
      let error = try ranks.expectError(CrosspointError.self, "\(sent) bytes", exchange)
      try ranks.expect(error.code, is: .truncatedFrame, "code for \(sent) bytes (\(error))")
      try ranks.expect(error.rank, is: ranks.last, "rank named for \(sent) bytes")
    } else {
      try exchange()
    }
    try ranks.world.barrier()
  }
}

private func exchangeWithSlack(
  _ ranks: Ranks, on fabric: any Fabric, _ sizes: [[Int]], most: Int, slack: Int, round: Int
) throws {
  let blocks = RaggedBlocks(rank: ranks.rank, sizes: sizes, round: round, memory: fabric.sharedMemory)
  let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: most * ranks.count, alignment: 64)
  defer {
    blocks.deallocate()
    memory.deallocate()
  }
  let receive = (0..<ranks.count).map {
    UnsafeMutableRawBufferPointer(rebasing: memory[$0 * most..<($0 + 1) * most])
  }
  var flaw: String?
  try fabric.exchange(
    send: blocks.send, receive: receive, slack: slack, operation: "exchange",
    arrived: { source in
      let incoming = blocks.incoming[source]
      incoming.copyMemory(from: UnsafeRawBufferPointer(rebasing: receive[source][..<incoming.count]))
      flaw = flaw ?? blocks.flaw(from: source)
    }, meanwhile: { false })
  try ranks.expect(flaw == nil, flaw ?? "")
}
