import CrosspointCore
import CrosspointFabric
import CrosspointMPI
import CrosspointTokens
import Glibc

/// Every rank reads what each wrote and writes what each reads, in blocks of all sizes, round after round of other ones: old
/// segments go, new ones come and are mapped when an address first names them.
func memoryShared(_ ranks: Ranks) throws {
  let fabric = try ranks.fabric()
  guard let memory = fabric.sharedMemory else { throw Unmet(description: "shares no memory: \(fabric.unshared)") }
  var random = SplitMix64(seed: UInt64(ranks.rank))
  var kept: [(base: UnsafeMutableRawPointer, bytes: Int)] = []
  for round in 0..<12 {
    // Not all of the last round's blocks go, so that segments stay in part.
    for index in kept.indices.reversed() where random.next() % 3 != 0 {
      let block = kept.remove(at: index)
      memory.deallocate(block.base, bytes: block.bytes)
    }
    let sizes = [64, 100, 4096, 70_000, 1 << 20, 5 << 20, Int(random.next() % (9 << 20)) + 1]
    let blocks = try sizes.map { bytes in
      guard let base = memory.allocate(bytes: bytes) else { throw Unmet(description: "no \(bytes) bytes") }
      try ranks.expect(Int(bitPattern: base) % 64, is: 0, "alignment")
      base.initializeMemory(as: UInt8.self, repeating: UInt8(ranks.rank + 1), count: bytes)
      return (base: base, bytes: bytes)
    }
    let own = try blocks.flatMap { block in
      guard let address = memory.address(of: block.base) else { throw Unmet(description: "memory without an address") }
      try ranks.expect(
        memory.address(of: block.base + (block.bytes - 1)), is: address + UInt64(block.bytes - 1), "address")
      return [address, UInt64(block.bytes)]
    }
    let all = try fabric.gather(own, operation: "gather")
    for peer in 0..<ranks.count {
      for index in blocks.indices {
        let (address, bytes) = (all[peer][2 * index], Int(all[peer][2 * index + 1]))
        let base = try memory.pointer(to: address, bytes: bytes, of: peer)
        let values = UnsafeRawBufferPointer(start: base, count: bytes)
        try ranks.expect(
          values[0] == UInt8(peer + 1) && values[bytes - 1] == UInt8(peer + 1), "block \(index) of \(peer)")
      }
    }
    try fabric.barrier(operation: "read")
    for peer in 0..<ranks.count {
      for index in blocks.indices {
        // Each rank writes a byte of its own.
        let byte = try memory.pointer(to: all[peer][2 * index] + UInt64(ranks.rank), bytes: 1, of: peer)
        byte.storeBytes(of: UInt8(100 + round + ranks.rank), as: UInt8.self)
      }
    }
    try fabric.barrier(operation: "written")
    for block in blocks {
      let values = UnsafeRawBufferPointer(start: block.base, count: block.bytes)
      try ranks.expect(
        Array(values[..<ranks.count]), is: (0..<ranks.count).map { UInt8(100 + round + $0) }, "what the others wrote")
    }
    kept += blocks
  }
  for block in kept { memory.deallocate(block.base, bytes: block.bytes) }
}

/// Ranks share memory with those of their node and no others; the same seen from both sides, and with the reason.
func memoryNodes(_ ranks: Ranks) throws {
  for path in Ranks.Path.allCases {
    var there = ranks
    there.path = path
    let fabric = try there.fabric()
    let node = path.ranksPerNode ?? ranks.count
    for peer in 0..<ranks.count where peer != ranks.rank {
      let shares = path != .messages && peer / node == ranks.rank / node
      try ranks.expect(fabric.sharedMemory?.reaches(peer) ?? false, is: shares, "\(path): rank \(peer) shares")
    }
    let alone =
      path == .messages || ranks.count == 1 || (path == .nodes && ranks.rank == ranks.last && ranks.count == 3)
    try ranks.expect(fabric.sharedMemory == nil, is: alone, "\(path): alone")
    try ranks.expect(fabric.sharedMemory?.reaches(ranks.rank) ?? true, "a rank reaches itself")
    let reasons = Array(repeating: "the program asked for messages", count: path == .messages ? ranks.count - 1 : 0)
    try ranks.expect(Array(fabric.unshared.values), is: reasons, "\(path): reasons")
  }
}

/// An address of no memory, or memory that the system does not have, is a typed error and nothing else.
func memoryRefused(_ ranks: Ranks) throws {
  let fabric = try ranks.fabric()
  guard let memory = fabric.sharedMemory, let base = memory.allocate(bytes: 5 << 20) else {
    throw Unmet(description: "no shared memory: \(fabric.unshared)")
  }
  let address = try fabric.gather([memory.address(of: base) ?? 0], operation: "gather")[ranks.last][0]
  for (address, bytes) in [
    (address, 6 << 20), (0, 1), (64, 1), (.max, 1), (address, -1), (address, .max), (1 << 60, 64),
  ] {
    let error = try ranks.expectError(CrosspointError.self, "\(bytes) bytes at \(address)") {
      _ = try memory.pointer(to: address, bytes: bytes, of: ranks.last)
    }
    try ranks.expect(error.code, is: .corruptFrame, "code")
    try ranks.expect(error.rank, is: ranks.last, "rank")
  }
  var own = 0
  try ranks.expect(withUnsafeBytes(of: &own) { memory.address(of: $0.baseAddress!) }, is: nil, "address of a variable")
  let pool = BufferPool(memory: memory)
  for bytes in [1 << 45, 1 << 60, .max - 64] {
    let error = try ranks.expectError(CrosspointError.self, "a buffer of \(bytes) bytes") {
      _ = try pool.lease(bytes: bytes)
    }
    try ranks.expect(error.code, is: .outOfMemory, "code")
  }
  let buffer = try pool.lease(bytes: 1 << 16)
  try ranks.expect(memory.address(of: buffer.base) != nil, "a buffer has an address")
  pool.release(buffer)
  try fabric.barrier(operation: "end")
  memory.deallocate(base, bytes: 5 << 20)
}

/// A rank under limits of its own: with those that it cannot share memory with it shares none, and all say why; memory that
/// it cannot map is an error of its own.
func memoryLimits(_ ranks: Ranks) throws {
  for (limit, reason) in [(RLIMIT_FSIZE, "ulimit -f"), (RLIMIT_NOFILE, "Too many open files")] {
    var before = rlimit()
    getrlimit(__rlimit_resource_t(limit.rawValue), &before)
    if ranks.rank == ranks.last {
      let used = open("/dev/null", O_RDONLY)
      close(used)
      var low = before
      low.rlim_cur = limit == RLIMIT_NOFILE ? rlim_t(used) : 1 << 20
      setrlimit(__rlimit_resource_t(limit.rawValue), &low)
    }
    let fabric = try ranks.fabric()
    setrlimit(__rlimit_resource_t(limit.rawValue), &before)
    for peer in 0..<ranks.count where peer != ranks.rank {
      let shares = peer != ranks.last && ranks.rank != ranks.last
      try ranks.expect(fabric.sharedMemory?.reaches(peer) ?? false, is: shares, "rank \(peer) shares, \(reason)")
      try ranks.expect(fabric.unshared[peer]?.contains(reason) ?? false, is: !shares, "\(fabric.unshared), \(reason)")
    }
    try fabric.barrier(operation: "limits")
  }

  let fabric = try ranks.fabric()
  guard let memory = fabric.sharedMemory, let base = memory.allocate(bytes: 64 << 20) else {
    throw Unmet(description: "no shared memory: \(fabric.unshared)")
  }
  let address = try fabric.gather([memory.address(of: base) ?? 0], operation: "gather")[0][0]
  if ranks.rank == ranks.last {
    var before = rlimit()
    getrlimit(__rlimit_resource_t(RLIMIT_AS.rawValue), &before)
    var low = before
    low.rlim_cur = 64 << 20
    setrlimit(__rlimit_resource_t(RLIMIT_AS.rawValue), &low)
    let missing = memory.allocate(bytes: 32 << 20)
    let error = try ranks.expectError(CrosspointError.self, "memory beyond the limit") {
      _ = try memory.pointer(to: address, bytes: 64, of: 0)
    }
    setrlimit(__rlimit_resource_t(RLIMIT_AS.rawValue), &before)
    try ranks.expect(missing == nil, "memory beyond the limit is not had")
    try ranks.expect(error.code, is: .outOfMemory, "code")
    try ranks.expect(error.rank, is: ranks.last, "rank")
    _ = try memory.pointer(to: address, bytes: 64, of: 0)
  }
  try fabric.barrier(operation: "limits")
  memory.deallocate(base, bytes: 64 << 20)
}
