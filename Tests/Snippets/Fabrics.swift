// snippet: lone-fabric
import Crosspoint

/// The smallest fabric: one rank alone, which sends to itself.
final class LoneFabric: Fabric {
  let rank = 0
  let rankCount = 1
  var deadline = Duration.seconds(60)
  let collectiveMemory = CollectiveMemory()

  func exchange(
    send: [UnsafeRawBufferPointer], receive: [UnsafeMutableRawBufferPointer], slack: Int,
    operation: StaticString, arrived: (_ source: Int) -> Void, meanwhile: () -> Bool
  ) throws(CrosspointError) {
    for (source, target) in zip(send, receive) {
      guard (target.count - slack...target.count).contains(source.count) else {
        throw CrosspointError(
          .truncatedFrame, operation: operation.description, rank: rank, argument: "receive",
          "\(source.count) bytes for a block of \(target.count)")
      }
      target.copyMemory(from: source)
    }
    arrived(0)
  }
}
// end

// snippet: counting-fabric
/// Any fabric, with the bytes counted that leave this rank.
final class CountingFabric: Fabric {
  private let inner: any Fabric
  private(set) var sentBytes = 0

  init(_ inner: any Fabric) { self.inner = inner }

  var rank: Int { inner.rank }
  var rankCount: Int { inner.rankCount }
  var sharedMemory: (any SharedMemory)? { inner.sharedMemory }
  var collectiveMemory: CollectiveMemory { inner.collectiveMemory }
  var deadline: Duration {
    get { inner.deadline }
    set { inner.deadline = newValue }
  }

  func exchange(
    send: [UnsafeRawBufferPointer], receive: [UnsafeMutableRawBufferPointer], slack: Int,
    operation: StaticString, arrived: (_ source: Int) -> Void, meanwhile: () -> Bool
  ) throws(CrosspointError) {
    let blocksPerRank = send.count / rankCount
    for (index, block) in send.enumerated() where index / blocksPerRank != rank {
      sentBytes += block.count
    }
    try inner.exchange(
      send: send, receive: receive, slack: slack, operation: operation, arrived: arrived,
      meanwhile: meanwhile)
  }
}
// end
