import CrosspointCore
import CrosspointFabric

/// A rank's fabric that writes down how many bytes it sends to whom.
public final class CountedFabric: Fabric {
  private let base: any Fabric
  /// By exchange and receiver.
  public private(set) var sizes: [[Int]] = []

  public init(_ base: any Fabric) { self.base = base }

  public var rank: Int { base.rank }
  public var rankCount: Int { base.rankCount }
  public var sharedMemory: (any SharedMemory)? { base.sharedMemory }
  public var collectiveMemory: CollectiveMemory { base.collectiveMemory }
  public var deadline: Duration {
    get { base.deadline }
    set { base.deadline = newValue }
  }

  public func beginExchange(
    send: [UnsafeRawBufferPointer], receive: [UnsafeMutableRawBufferPointer], slack: Int, operation: StaticString
  ) throws(CrosspointError) -> Int {
    let share = send.count / rankCount
    sizes.append((0..<rankCount).map { send[$0 * share..<($0 + 1) * share].reduce(0) { $0 + $1.count } })
    return try base.beginExchange(send: send, receive: receive, slack: slack, operation: operation)
  }

  public func finishExchange(
    _ number: Int, arrived: (_ source: Int) -> Void, meanwhile: () -> Bool
  ) throws(CrosspointError) {
    try base.finishExchange(number, arrived: arrived, meanwhile: meanwhile)
  }
}
