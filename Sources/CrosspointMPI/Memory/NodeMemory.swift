import CrosspointCore
import CrosspointFabric
import MPI
import Synchronization

/// The memory of a rank that others of its node read and write, and what it can read and write of theirs.
final class NodeMemory: SharedMemory {
  let rank: Int
  private let heap: SharedHeap
  /// By rank of the fabric; without this one, and without those that share no memory with it.
  private let peers: [Int: PeerMemory]
  /// Whether the fabric has failed: what is given back then is given to nobody.
  private let hasFailed = Atomic(false)

  init(rank: Int, heap: SharedHeap, peers: [Int: PeerMemory]) {
    self.rank = rank
    self.heap = heap
    self.peers = peers
  }

  func allocate(bytes: Int) -> UnsafeMutableRawPointer? { heap.allocate(bytes: bytes) }
  func deallocate(_ base: UnsafeMutableRawPointer, bytes: Int) {
    if !hasFailed.load(ordering: .relaxed) { heap.deallocate(base, bytes: bytes) }
  }

  /// The fabric has failed.
  func fail() { hasFailed.store(true, ordering: .relaxed) }

  func address(of pointer: UnsafeRawPointer) -> UInt64? { heap.offset(of: pointer).map { UInt64($0) } }
  func reaches(_ rank: Int) -> Bool { rank == self.rank || peers[rank] != nil }

  func pointer(
    to address: UInt64, bytes: Int, of rank: Int
  ) throws(CrosspointError) -> UnsafeMutableRawPointer {
    let start = Int(clamping: address)
    let end = start.addingReportingOverflow(bytes)
    do throws(MemoryObstacle) {
      if bytes >= 0, !end.overflow {
        let range = start..<end.partialValue
        if let found = rank == self.rank ? heap.find(range) : try peers[rank]?.find(range) { return found }
      }
    } catch {
      throw CrosspointError(
        .outOfMemory, operation: "sharedMemory", rank: self.rank, argument: "address",
        "the memory of rank \(rank) cannot be mapped here: \(error); raise the limit (ulimit -v)")
    }
    throw CrosspointError(
      .corruptFrame, operation: "sharedMemory", rank: rank, argument: "address",
      "rank \(rank) has no \(bytes) bytes at \(address)")
  }
}
