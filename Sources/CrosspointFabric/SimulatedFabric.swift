import CrosspointCore

/// One rank's view of a ``SimulatedCluster``.
final class SimulatedFabric: Fabric {
  let rank: Int
  let rankCount: Int
  @exclusivity(unchecked) var deadline: Duration
  var sharedMemory: (any SharedMemory)? { memory }
  let collectiveMemory = CollectiveMemory()

  private let memory: SimulatedMemory?
  private let switchboard: Switchboard
  private let faults: [Fault]
  /// Exchanges begun, for the faults.
  private var begun = 0

  init(rank: Int, cluster: SimulatedCluster, switchboard: Switchboard, memory: SimulatedMemory.Blocks) {
    self.rank = rank
    rankCount = cluster.ranks
    deadline = cluster.deadline
    self.memory =
      cluster.ranksPerNode == 1
      ? nil : SimulatedMemory(rank: rank, ranksPerNode: cluster.ranksPerNode, blocks: memory)
    faults = cluster.faults
    self.switchboard = switchboard
  }

  func beginExchange(
    send: [UnsafeRawBufferPointer], receive: [UnsafeMutableRawBufferPointer], slack: Int, operation: StaticString
  ) throws(CrosspointError) -> Int {
    precondition(send.count.isMultiple(of: rankCount) && send.count == receive.count, "as many blocks for each rank")
    precondition(slack == 0 || send.count == rankCount, "one block for each rank, where lengths may differ")
    let exchange = begun
    begun += 1
    do throws(CrosspointError) {
      try suffer(exchange, operation)
      return try switchboard.begin(rank, send: send, receive: receive, slack: slack, operation: operation)
    } catch {
      memory?.fail()
      throw error
    }
  }

  func finishExchange(
    _ number: Int, arrived: (_ source: Int) -> Void, meanwhile: () -> Bool
  ) throws(CrosspointError) {
    do throws(CrosspointError) {
      try switchboard.finish(
        number, of: rank, within: deadline,
        arrived: { source, received in
          flipBytes(of: received, from: source, number - 1)
          arrived(source)
        }, meanwhile: meanwhile)
    } catch {
      memory?.fail()
      throw error
    }
  }

  /// The faults of this rank itself.
  private func suffer(_ exchange: Int, _ operation: StaticString) throws(CrosspointError) {
    for fault in faults where fault.rank == rank {
      switch fault.kind {
      case .slow(let delay):
        switchboard.pause(for: delay)
      case .silent where exchange >= fault.exchange:
        switchboard.fallSilent()
        throw switchboard.lose(rank, lost("fell silent", exchange, operation))
      case .dead where exchange == fault.exchange:
        throw switchboard.lose(rank, lost("died", exchange, operation))
      case .silent, .dead, .flippedByte:
        break
      }
    }
  }

  private func lost(_ how: String, _ exchange: Int, _ operation: StaticString) -> CrosspointError {
    CrosspointError(
      .rankLost, operation: operation.description, rank: rank, argument: "faults",
      "the rank \(how) at exchange \(exchange), as it was told to")
  }

  private func flipBytes(
    of blocks: ArraySlice<UnsafeMutableRawBufferPointer>, from source: Int, _ exchange: Int
  ) {
    for fault in faults where fault.rank == source && fault.exchange == exchange {
      guard case .flippedByte(receiver: rank, let offset) = fault.kind else { continue }
      var start = 0
      for block in blocks {
        if (start..<start + block.count).contains(offset) { block[offset - start] = ~block[offset - start] }
        start += block.count
      }
      precondition(offset < start, "no byte \(offset) among \(start): the fault hits nothing")
    }
  }
}
