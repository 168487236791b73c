import CrosspointCore
import Synchronization

/// The shared memory of a simulated node: all ranks live in one process, so an address is a pointer.
final class SimulatedMemory: SharedMemory {
  private let rank: Int
  private let ranksPerNode: Int
  /// What every rank of the cluster has allocated.
  private let blocks: Blocks
  /// Whether this rank's fabric has failed: what it gives back then lasts as long as the cluster.
  private let hasFailed = Atomic(false)

  /// Memory in use, by rank; what belongs to nobody is not to be reached.
  final class Blocks: Sendable {
    private let ofRank: Mutex<[[UInt: Int]]>
    /// What ranks gave back after their fabric had failed.
    private let kept = Mutex<[(base: UInt, bytes: Int)]>([])

    init(ranks: Int) { ofRank = Mutex(Array(repeating: [:], count: ranks)) }

    deinit {
      for block in kept.withLock({ $0 }) {
        PrivateMemory.shared.deallocate(UnsafeMutableRawPointer(bitPattern: block.base)!, bytes: block.bytes)
      }
    }

    func keep(_ base: UnsafeMutableRawPointer, _ bytes: Int) {
      kept.withLock { $0.append((UInt(bitPattern: base), bytes)) }
    }

    func insert(_ base: UnsafeMutableRawPointer, _ bytes: Int, of rank: Int) {
      ofRank.withLock { $0[rank][UInt(bitPattern: base)] = bytes }
    }

    func remove(_ base: UnsafeMutableRawPointer, of rank: Int) {
      ofRank.withLock { $0[rank][UInt(bitPattern: base)] = nil }
    }

    func contains(_ address: UInt, _ bytes: Int, of rank: Int) -> Bool {
      ofRank.withLock { blocks in
        blocks[rank].contains {
          $0.key <= address && address - $0.key <= UInt($0.value) - UInt(min(bytes, $0.value))
            && bytes <= $0.value
        }
      }
    }
  }

  init(rank: Int, ranksPerNode: Int, blocks: Blocks) {
    self.rank = rank
    self.ranksPerNode = ranksPerNode
    self.blocks = blocks
  }

  func allocate(bytes: Int) -> UnsafeMutableRawPointer? {
    guard let base = PrivateMemory.shared.allocate(bytes: bytes) else { return nil }
    blocks.insert(base, bytes, of: rank)
    return base
  }

  func deallocate(_ base: UnsafeMutableRawPointer, bytes: Int) {
    if hasFailed.load(ordering: .relaxed) { return blocks.keep(base, bytes) }
    blocks.remove(base, of: rank)
    PrivateMemory.shared.deallocate(base, bytes: bytes)
  }

  func fail() { hasFailed.store(true, ordering: .relaxed) }

  func reaches(_ rank: Int) -> Bool { rank / ranksPerNode == self.rank / ranksPerNode }

  func address(of pointer: UnsafeRawPointer) -> UInt64? {
    let address = UInt(bitPattern: pointer)
    return blocks.contains(address, 1, of: rank) ? UInt64(address) : nil
  }

  func pointer(
    to address: UInt64, bytes: Int, of rank: Int
  ) throws(CrosspointError) -> UnsafeMutableRawPointer {
    guard reaches(rank), blocks.contains(UInt(address), bytes, of: rank),
      let pointer = UnsafeMutableRawPointer(bitPattern: UInt(address))
    else {
      throw CrosspointError(
        .corruptFrame, operation: "sharedMemory", rank: rank, argument: "address",
        "rank \(rank) has no \(bytes) bytes at \(address)")
    }
    return pointer
  }
}
