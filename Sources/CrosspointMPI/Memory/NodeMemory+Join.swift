import MPI

extension NodeMemory {
  /// What the ranks of a node agreed on.
  struct Joined {
    /// `nil` where this rank shares memory with no other.
    var memory: NodeMemory?
    /// By rank: the ranks of this node that this one shares no memory with, and why.
    var obstacles: [Int: MemoryObstacle] = [:]
    /// By rank of the fabric: those that this one shares memory with.
    var nodePeers: [NodePeer?] = []

    /// Whether another rank is of this node.
    func isHere(_ rank: Int) -> Bool { nodePeers[rank] != nil || obstacles[rank] != nil }
  }

  /// What keeps this process from sharing memory with any other; `nil`: nothing.
  static var obstacle: MemoryObstacle? {
    do throws(MemoryObstacle) {
      let heap = try SharedHeap(controlBytes: SegmentTable.bytes)
      _ = try PeerMemory(opening: heap.name, controlBytes: SegmentTable.bytes)
      return nil
    } catch {
      return error
    }
  }

  /// Opens the memory of every rank of the node, both ways or not at all. Collective.
  ///
  /// - Parameters:
  ///   - sharesMemory: false: this rank offers none and takes none.
  ///   - ranksPerNode: so many ranks in a row form a node; `nil`: those that MPI says have memory in common.
  static func join(
    _ communicator: Communicator, sharesMemory: Bool, ranksPerNode: Int?
  ) throws(MPIError) -> Joined {
    let rank = communicator.rank
    var node = try communicator.splitShared(key: rank)
    if let ranksPerNode, let part = try node.split(color: rank / ranksPerNode, key: rank) { node = part }
    var joined = Joined()
    joined.nodePeers = Array(repeating: nil, count: communicator.size)
    guard node.size > 1 else { return joined }

    let controlBytes = round(SegmentTable.bytes + Mailbox.bytes(node: node.size), to: 4096)
    var heap: SharedHeap?
    var obstacle = MemoryObstacle.none
    do throws(MemoryObstacle) {
      guard sharesMemory else { throw .unwanted }
      heap = try SharedHeap(controlBytes: controlBytes)
    } catch {
      obstacle = error
    }
    let name = heap?.name ?? .init(process: 0, descriptor: 0, cookie: 0)
    let offers = try node.allgather([
      UInt64(rank), UInt64(bitPattern: Int64(obstacle.code)), name.process, name.descriptor, name.cookie,
    ])

    // What kept this rank from opening the memory of each, and each from opening this one's.
    var peers: [PeerMemory?] = Array(repeating: nil, count: node.size)
    var mine: [Int32] = Array(repeating: 0, count: node.size)
    for index in 0..<node.size where index != node.rank {
      let offer = offers[5 * index..<5 * index + 5].map { $0 }
      do throws(MemoryObstacle) {
        let offered = MemoryObstacle(code: Int32(truncatingIfNeeded: offer[1]))
        guard offered == .none, obstacle == .none else { throw obstacle == .none ? offered : obstacle }
        peers[index] = try PeerMemory(
          opening: .init(process: offer[2], descriptor: offer[3], cookie: offer[4]), controlBytes: controlBytes)
      } catch {
        mine[index] = error.code
      }
    }
    let theirs = try node.alltoall(mine)

    var reached: [Int: PeerMemory] = [:]
    for index in 0..<node.size where index != node.rank {
      let other = Int(offers[5 * index])
      if mine[index] == 0, theirs[index] == 0, let heap, let peer = peers[index] {
        reached[other] = peer
        joined.nodePeers[other] = NodePeer(
          index, control: peer.control, own: node.rank, ownControl: heap.control, node: node.size)
      } else {
        joined.obstacles[other] = MemoryObstacle(code: mine[index] == 0 ? theirs[index] : mine[index])
      }
    }
    if let heap, !reached.isEmpty { joined.memory = NodeMemory(rank: rank, heap: heap, peers: reached) }
    return joined
  }
}
