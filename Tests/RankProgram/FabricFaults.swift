import CrosspointCore
import CrosspointFabric
import CrosspointMPI
import Glibc

/// A rank that sends more or fewer bytes than expected is caught and named, whole or cut into chunks; the ranks that it
/// serves well notice nothing, and a faulty fabric stays shut.
func fabricTruncated(_ ranks: Ranks) throws {
  let cases = [
    // bytes sent, bytes expected, chunk limit
    (8, 16, 1 << 20), (16, 8, 1 << 20), (100_000, 200_000, 1 << 20), (200_000, 100_000, 1 << 20),
    (100, 150, 64), (64, 128, 64), (64, 65, 64), (63, 64, 64), (40, 100, 64), (100, 40, 64), (65, 64, 64),
    (0, 16, 1 << 20), (16, 0, 1 << 20), (0, 100, 64), (100, 0, 64), (10_000, 64, 1 << 20), (64, 10_000, 1 << 20),
  ]
  for ((sent, expected, limit), round) in cases.flatMap({ [($0, 2), ($0, 3)] }) {
    let fabric = try ranks.fabric(deadline: .seconds(10), chunkLimit: limit)
    // The last rank misjudges its block for rank 0 alone.
    let row = Array(repeating: expected, count: ranks.count)
    var sizes = Array(repeating: row, count: ranks.count)
    if ranks.rank == ranks.last { sizes[ranks.last][0] = sent }
    let blocks = RaggedBlocks(rank: ranks.rank, sizes: sizes, round: round, memory: fabric.sharedMemory)
    defer { blocks.deallocate() }
    func exchange() throws { try fabric.exchange(send: blocks.send, receive: blocks.incoming, operation: "dispatch") }
    let what = "\(sent) bytes where \(expected) are expected, limit \(limit)"
    if ranks.rank == 0 {
      let error = try ranks.expectError(CrosspointError.self, what, exchange)
      try ranks.expect(error.code, is: .truncatedFrame, "code for \(what) (\(error))")
      try ranks.expect(error.rank, is: ranks.last, "rank named for \(what)")
      try ranks.expect(error.operation, is: "dispatch", "operation named for \(what)")
      let again = try ranks.expectError(CrosspointError.self, "the next exchange", exchange)
      try ranks.expect(again, is: error, "the next exchange's error")
    } else {
      try exchange()
    }
    try ranks.world.barrier()
  }
}

/// A rank that does not answer is named by all others when the deadline passes.
func fabricDeadline(_ ranks: Ranks) throws {
  let fabric = try ranks.fabric(deadline: .seconds(1))
  try ranks.world.barrier()
  if ranks.rank == ranks.last {
    sleep(3)
  } else {
    let start = ContinuousClock.now
    let error = try waitForLastRank(ranks, on: fabric, bytes: 64)
    let waited = ContinuousClock.now - start
    try ranks.expect(waited >= .seconds(1), "no verdict before the deadline (after \(waited))")
    try ranks.expect(error.code, is: .deadlineExceeded, "code (\(error))")
    try ranks.expect(error.rank, is: ranks.last, "rank named")
    try ranks.expect(error.message.contains("rank \(ranks.last) did not send to rank \(ranks.rank)"), error.message)
    try ranks.expect(error.message.contains("1.0 seconds"), error.message)
  }
}

/// A rank that has sent but does not take what it is sent is named, too.
func fabricUntaken(_ ranks: Ranks) throws {
  let fabric = try ranks.fabric(deadline: .seconds(1))
  try ranks.world.barrier()
  let sizes = (0..<ranks.count).map { source in
    (0..<ranks.count).map { source == ranks.last || $0 != ranks.last ? 64 : 1 << 17 }
  }
  let blocks = RaggedBlocks(rank: ranks.rank, sizes: sizes, round: ranks.last, memory: fabric.sharedMemory)
  if ranks.rank == ranks.last {
    fabric.deadline = .seconds(30)
    let exchange = try fabric.beginExchange(
      send: blocks.send, receive: blocks.incoming, slack: 0, operation: "dispatch")
    try ranks.world.barrier()
    sleep(3)
    return try fabric.finishExchange(exchange, arrived: { _ in }, meanwhile: { false })
  }
  // It has sent before anything was there to take.
  try ranks.world.barrier()
  let error = try ranks.expectError(CrosspointError.self, "an exchange with a rank that takes nothing") {
    try fabric.exchange(send: blocks.send, receive: blocks.incoming, operation: "dispatch")
  }
  try ranks.expect(error.code, is: .deadlineExceeded, "code (\(error))")
  try ranks.expect(error.rank, is: ranks.last, "rank named")
  try ranks.expect(error.message.contains("did not receive from rank \(ranks.rank)"), error.message)
}

/// What a rank sends too late for one fabric is never taken for what it sends through the next.
func fabricLate(_ ranks: Ranks) throws {
  let row = Array(repeating: 64, count: ranks.count)
  func exchange(round: Int, deadline: Duration, delay: UInt32) throws {
    let fabric = try ranks.fabric(deadline: deadline)
    let blocks = RaggedBlocks(rank: ranks.rank, sizes: Array(repeating: row, count: ranks.count), round: round)
    defer { blocks.deallocate() }
    try ranks.world.barrier()
    if ranks.rank == ranks.last { sleep(delay) }
    try fabric.exchange(send: blocks.send, receive: blocks.incoming, operation: "dispatch")
    for source in 0..<ranks.count {
      let flaw = blocks.flaw(from: source)
      try ranks.expect(flaw == nil, flaw ?? "")
    }
  }
  if ranks.rank == ranks.last {
    try exchange(round: 1, deadline: .seconds(30), delay: 2)
  } else {
    let error = try ranks.expectError(CrosspointError.self, "an exchange with a late rank") {
      try exchange(round: 1, deadline: .milliseconds(500), delay: 0)
    }
    try ranks.expect(error.code, is: .deadlineExceeded, "code (\(error))")
  }
  try ranks.world.barrier()
  try exchange(round: 2, deadline: .seconds(30), delay: 0)
}

/// A rank that is stopped is named by the others, which end the job, the stopped rank included.
func fabricStopped(_ ranks: Ranks) throws {
  let fabric = try ranks.fabric(deadline: .seconds(1))
  try ranks.world.barrier()
  if ranks.rank == ranks.last { raise(SIGSTOP) }
  report("\(try waitForLastRank(ranks, on: fabric, bytes: 1 << 20))")
  fabric.abort(exitCode: 3)
}

/// A rank that is killed ends the job; mpirun names it.
func fabricKilled(_ ranks: Ranks) throws {
  let fabric = try ranks.fabric(deadline: .seconds(20))
  try ranks.world.barrier()
  if ranks.rank == ranks.last { raise(SIGKILL) }
  report("\(try waitForLastRank(ranks, on: fabric, bytes: 1 << 20))")
  fabric.abort(exitCode: 3)
}

private func waitForLastRank(_ ranks: Ranks, on fabric: MPIFabric, bytes: Int) throws -> CrosspointError {
  let row = Array(repeating: bytes, count: ranks.count)
  let blocks = RaggedBlocks(
    rank: ranks.rank, sizes: Array(repeating: row, count: ranks.count), round: 1, memory: fabric.sharedMemory)
  return try ranks.expectError(CrosspointError.self, "an exchange with a silent rank") {
    try fabric.exchange(send: blocks.send, receive: blocks.incoming, operation: "dispatch")
  }
}
