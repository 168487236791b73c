import CrosspointCompression
import CrosspointCore
import CrosspointFabric
import CrosspointTokens

/// What the ranks of a node tell each other in memory: where the rows, frames and metadata of the transfer under way lie.
///
/// Every rank has a table, which it alone writes. What it writes before an announcement or a vote the others read after it,
/// until the transfer's last vote.
///
/// Words of 64 bits: whether its rows are to be read where they lie · their address · their number. Then for every rank: the
/// address of the frame for it, that of the metadata, and that of each group of rows, to be written or read.
final class NodeTables {
  /// The ranks of this node, this one last: so that each begins with another. This one alone until they are connected.
  private(set) var ranks: [Int]
  private let memory: any SharedMemory
  private let rank: Int
  private let groups: Int
  private let pool: BufferPool
  private let buffer: BufferPool.Buffer
  /// The tables, by rank; `nil` for ranks of other nodes.
  @exclusivity(unchecked) private var tables: [UnsafeMutablePointer<UInt64>?]

  private static let headWords = 3
  private var rankWords: Int { 2 + groups }
  private var bytes: Int { (Self.headWords + tables.count * rankWords) * MemoryLayout<UInt64>.stride }

  /// - Parameter groups: the most of any frame.
  init(fabric: any Fabric, groups: Int, pool: BufferPool) throws(CrosspointError) {
    let memory = fabric.sharedMemory ?? UnsharedMemory(rank: fabric.rank)
    self.memory = memory
    self.groups = groups
    self.pool = pool
    rank = fabric.rank
    ranks = [fabric.rank]
    tables = Array(repeating: nil, count: fabric.rankCount)
    let words = Self.headWords + fabric.rankCount * (2 + groups)
    buffer = try pool.lease(bytes: words * MemoryLayout<UInt64>.stride)
    tables[rank] = buffer.base.bindMemory(to: UInt64.self, capacity: words)
    tables[rank]!.update(repeating: 0, count: words)
  }

  deinit { pool.release(buffer) }

  /// Whether this rank and another are of one node.
  func reaches(_ rank: Int) -> Bool { tables[rank] != nil }

  /// Tells the others where this rank's table is and whom it reaches, and finds the tables of its node: of the ranks that
  /// reach the same ones as this rank does. Collective.
  ///
  /// - Parameter tables: this rank's; `nil` if its attempt has failed.
  static func connect(
    _ tables: NodeTables?, _ fabric: any Fabric, _ attempt: inout Attempt
  ) throws(CrosspointError) {
    let words = 2
    var failure: CrosspointError?
    try withUnsafeTemporaryAllocation(of: UInt64.self, capacity: words * (fabric.rankCount + 1)) {
      all throws(CrosspointError) in
      all.initialize(repeating: 0)
      if let tables { (all[0], all[1]) = (tables.memory.address(of: tables.buffer.base)!, tables.reach) }
      let bytes = UnsafeMutableRawBufferPointer(all)
      let size = words * MemoryLayout<UInt64>.stride
      try fabric.allgather(
        UnsafeRawBufferPointer(rebasing: bytes[..<size]),
        into: UnsafeMutableRawBufferPointer(rebasing: bytes[size...]), operation: "ExpertExchange.init")
      do throws(CrosspointError) {
        // A rank that has failed has no table: the vote is yet to come.
        try tables?.connect { (address: all[words * ($0 + 1)], reach: all[words * ($0 + 1) + 1]) }
      } catch {
        failure = error
      }
    }
    attempt.fail(failure)
  }

  /// Names the set of ranks whose memory this one reaches.
  private var reach: UInt64 {
    var generator = SplitMix64(seed: 0)
    return tables.indices.reduce(0) { reach, rank in
      let name = generator.next()
      return memory.reaches(rank) ? reach ^ name : reach
    }
  }

  private func connect(_ others: (_ rank: Int) -> (address: UInt64, reach: UInt64)) throws(CrosspointError) {
    let (reach, count) = (reach, tables.count)
    let peers = (1..<count).map { (rank + $0) % count }.filter { memory.reaches($0) && others($0).reach == reach }
    for peer in peers {
      tables[peer] = try memory.pointer(to: others(peer).address, bytes: bytes, of: peer).assumingMemoryBound(
        to: UInt64.self)
    }
    ranks = peers + [rank]
  }

  // MARK: - Rows that are read where they lie

  /// Tells the others that these rows are to be read where they lie; `nil`: they are not.
  /// - Returns: whether they can be.
  @discardableResult
  func offer(_ view: RowsView?) -> Bool {
    let table = tables[rank]!
    table[0] = 0
    guard let view, let address = view.rows == 0 ? 0 : memory.address(of: view.first.base) else { return false }
    (table[0], table[1], table[2]) = (1, address, UInt64(view.rows))
    return true
  }

  func isOffered(by peer: Int) -> Bool { tables[peer]![0] != 0 }

  func rowsOffered(by peer: Int, hidden: Int, _ type: RowType) throws(CrosspointError) -> RowsView {
    let count = Int(tables[peer]![2])
    let base =
      count == 0
      ? buffer.base : try memory.pointer(to: tables[peer]![1], bytes: type.bytes * hidden * count, of: peer)
    return RowsView(RowPointer(base, type), rows: count, hidden: hidden)
  }

  // MARK: - Groups of rows: those that a rank is to write here, or to read

  func setGroups(for peer: Int, _ groups: [RowSource]) {
    setGroups(for: peer, groups.count) { (UnsafeRawPointer(groups[$0].first.base), groups[$0].rows) }
  }

  func setGroups(for peer: Int, _ groups: [RowTarget]) {
    setGroups(for: peer, groups.count) { (UnsafeRawPointer(groups[$0].first.base), groups[$0].rows) }
  }

  /// All lie in one piece of memory.
  private func setGroups(for peer: Int, _ count: Int, _ group: (Int) -> (base: UnsafeRawPointer, rows: Int)) {
    let words = words(for: peer, of: rank) + 2
    guard let first = (0..<count).first(where: { group($0).rows > 0 }).map({ group($0).base }) else { return }
    let address = memory.address(of: first)!
    for index in 0..<count where group(index).rows > 0 {
      words[index] = address &+ UInt64(bitPattern: Int64(group(index).base - first))
    }
  }

  /// Finds the groups for this rank in a rank's memory; those without rows may lie anywhere.
  func findGroups(
    of peer: Int, _ count: Int, hidden: Int, _ type: RowType, into groups: inout [RowTarget], rows: (Int) -> Int
  ) throws(CrosspointError) {
    let words = words(for: rank, of: peer) + 2
    var (start, end) = (UInt64.max, UInt64.min)
    for group in 0..<count where rows(group) > 0 {
      start = min(start, words[group])
      end = max(end, words[group] &+ UInt64(type.bytes * hidden * rows(group)))
    }
    groups.removeAll(keepingCapacity: true)
    let base =
      start < end ? try memory.pointer(to: start, bytes: Int(truncatingIfNeeded: end - start), of: peer) : buffer.base
    for group in 0..<count {
      let place = rows(group) > 0 ? base + Int(words[group] - start) : base
      groups.append(RowTarget(first: RowPointer(place, type), rows: rows(group)))
    }
  }

  // MARK: - Blocks of bytes: a frame and metadata for each rank

  enum Block: Int {
    case frame, metadata
  }

  func set(_ block: Block, for peer: Int, _ bytes: UnsafeRawBufferPointer) {
    guard let base = bytes.baseAddress, bytes.count > 0 else { return }
    words(for: peer, of: rank)[block.rawValue] = memory.address(of: base)!
  }

  /// A block for this rank of so many bytes, in the memory of another.
  func find(_ block: Block, of peer: Int, bytes: Int) throws(CrosspointError) -> UnsafeRawBufferPointer {
    guard bytes > 0 else { return UnsafeRawBufferPointer(start: nil, count: 0) }
    let base = try memory.pointer(to: words(for: rank, of: peer)[block.rawValue], bytes: bytes, of: peer)
    return UnsafeRawBufferPointer(start: base, count: bytes)
  }

  private func words(for reader: Int, of writer: Int) -> UnsafeMutablePointer<UInt64> {
    tables[writer]! + (Self.headWords + reader * rankWords)
  }
}
