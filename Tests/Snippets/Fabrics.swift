// snippet: lone-fabric
import Crosspoint

/// The smallest fabric: one rank alone, which sends to itself.
final class LoneFabric: Fabric {
  let rank = 0
  let rankCount = 1
  var deadline = Duration.seconds(60)
  let collectiveMemory = CollectiveMemory()

  private var exchanges = 0

  func beginExchange(
    send: [UnsafeRawBufferPointer], receive: [UnsafeMutableRawBufferPointer], slack: Int,
    operation: StaticString
  ) throws(CrosspointError) -> Int {
    for (source, target) in zip(send, receive) {
      guard (target.count - slack...target.count).contains(source.count) else {
        throw CrosspointError(
          .truncatedFrame, operation: operation.description, rank: rank, argument: "receive",
          "\(source.count) bytes for a block of \(target.count)")
      }
      target.copyMemory(from: source)
    }
    exchanges += 1
    return exchanges
  }

  func finishExchange(
    _ number: Int, arrived: (_ source: Int) -> Void, meanwhile: () -> Bool
  ) throws(CrosspointError) {
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

  func beginExchange(
    send: [UnsafeRawBufferPointer], receive: [UnsafeMutableRawBufferPointer], slack: Int,
    operation: StaticString
  ) throws(CrosspointError) -> Int {
    let blocksPerRank = send.count / rankCount
    for (index, block) in send.enumerated() where index / blocksPerRank != rank {
      sentBytes += block.count
    }
    return try inner.beginExchange(send: send, receive: receive, slack: slack, operation: operation)
  }

  func finishExchange(
    _ number: Int, arrived: (_ source: Int) -> Void, meanwhile: () -> Bool
  ) throws(CrosspointError) {
    try inner.finishExchange(number, arrived: arrived, meanwhile: meanwhile)
  }
}
// end
