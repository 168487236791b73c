import CrosspointCore
import CrosspointFabric
import CrosspointMPI
import CrosspointTestSupport
import Glibc

/// Ranks work while bytes are under way: slices in order and never one too many, round after round of ragged blocks, large
/// enough that MPI moves them only when it is called.
func fabricMeanwhile(_ ranks: Ranks) throws {
  let fabric = try ranks.fabric()
  for round in 0..<16 {
    let blocks = RaggedBlocks(
      rank: ranks.rank, count: ranks.count, largest: 1 << 20, round: round, memory: fabric.sharedMemory)
    defer { blocks.deallocate() }
    var work = CountedWork(slices: [0, 1, 20, 100_000][(round + ranks.rank) % 4])
    var reported = 0
    try fabric.exchange(
      send: blocks.send, receive: blocks.incoming, operation: "exchange",
      arrived: { _ in
        reported += 1
        work.arrive()
      },
      meanwhile: { work.next() })
    for source in 0..<ranks.count {
      let flaw = blocks.flaw(from: source)
      try ranks.expect(flaw == nil, flaw ?? "")
    }
    try ranks.expect(reported, is: ranks.count, "blocks reported")
    try ranks.expect(work.done, is: Array(0..<work.done.count), "slices in order")
    try ranks.expect(!work.wasAskedTooOften, "no call after the last slice, if nothing has arrived")
  }
}

/// The last rank sends only once it hears of its peers' slice, which lasts longer than their deadline, at its start or at its
/// end: what came in it is taken, its own time is nobody's silence, and all of it was done before anything arrived.
func fabricMeanwhileArrival(_ ranks: Ranks) throws {
  for isEarly in [true, false] {
    try arrivalDuringWork(ranks, isEarly: isEarly)
    try ranks.world.barrier()
  }
}

private func arrivalDuringWork(_ ranks: Ranks, isEarly: Bool) throws {
  let fabric = try ranks.fabric()
  let sizes = Array(repeating: Array(repeating: 8, count: ranks.count), count: ranks.count)
  let blocks = RaggedBlocks(rank: ranks.rank, sizes: sizes, round: 1)
  defer { blocks.deallocate() }
  var events: [String] = []
  var failure: (any Error)?
  if ranks.rank == ranks.last {
    var news: [Int32] = [0]
    for peer in 0..<ranks.last { try ranks.world.receive(into: &news, from: peer, tag: 1) }
    if !isEarly { usleep(50_000) }
  } else {
    fabric.deadline = .milliseconds(400)
  }
  try fabric.exchange(
    send: blocks.send, receive: blocks.incoming, operation: "exchange",
    arrived: { if $0 == ranks.last { events.append("arrival") } },
    meanwhile: {
      guard ranks.rank != ranks.last, events.isEmpty else { return false }
      events.append("slice")
      if !isEarly { usleep(500_000) }
      do { try ranks.world.send([Int32(0)], to: ranks.last, tag: 1) } catch { failure = error }
      if isEarly { usleep(500_000) }
      return false
    })
  if let failure { throw failure }
  for source in 0..<ranks.count {
    let flaw = blocks.flaw(from: source)
    try ranks.expect(flaw == nil, flaw ?? "")
  }
  if ranks.rank != ranks.last { try ranks.expect(events, is: ["slice", "arrival"], "what happened") }
}

/// A rank that does not answer is named to those who work meanwhile, and their work is in order as far as it goes.
func fabricMeanwhileDeadline(_ ranks: Ranks) throws {
  let fabric = try ranks.fabric(deadline: .milliseconds(500))
  try ranks.world.barrier()
  if ranks.rank == ranks.last {
    sleep(2)
    return
  }
  let sizes = Array(repeating: Array(repeating: 64, count: ranks.count), count: ranks.count)
  let blocks = RaggedBlocks(rank: ranks.rank, sizes: sizes, round: 1)
  defer { blocks.deallocate() }
  var work = CountedWork(slices: 1000)
  let error = try ranks.expectError(CrosspointError.self, "an exchange with a silent rank") {
    try fabric.exchange(
      send: blocks.send, receive: blocks.incoming, operation: "dispatch", arrived: { _ in work.arrive() },
      meanwhile: { work.next() })
  }
  try ranks.expect(error.code, is: .deadlineExceeded, "code (\(error))")
  try ranks.expect(error.rank, is: ranks.last, "rank named")
  try ranks.expect(work.isComplete && work.done == Array(0..<1000), "slices in order")
}
