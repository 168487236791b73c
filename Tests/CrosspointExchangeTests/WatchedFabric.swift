import CrosspointCore
import CrosspointFabric

/// A rank's fabric that writes down what happens in one of its exchanges, and can be held up before each.
final class WatchedFabric: Fabric {
  let base: any Fabric
  /// Called with the number of every exchange before it begins.
  let before: (Int) -> Void
  /// What happened so far; others may add to it.
  var events: [String] = []
  private var begun = 0
  /// By the number that the base gave.
  private var numbers: [Int: Int] = [:]

  init(_ base: any Fabric, before: @escaping (Int) -> Void = { _ in }) {
    self.base = base
    self.before = before
  }

  var rank: Int { base.rank }
  var rankCount: Int { base.rankCount }
  var collectiveMemory: CollectiveMemory { base.collectiveMemory }
  var sharedMemory: (any SharedMemory)? { base.sharedMemory }
  var deadline: Duration {
    get { base.deadline }
    set { base.deadline = newValue }
  }

  func beginExchange(
    send: [UnsafeRawBufferPointer], receive: [UnsafeMutableRawBufferPointer], slack: Int, operation: StaticString
  ) throws(CrosspointError) -> Int {
    let number = begun
    begun += 1
    before(number)
    events.append("\(number) begins")
    let own = try base.beginExchange(send: send, receive: receive, slack: slack, operation: operation)
    numbers[own] = number
    return own
  }

  func finishExchange(
    _ own: Int, arrived: (_ source: Int) -> Void, meanwhile: () -> Bool
  ) throws(CrosspointError) {
    let number = numbers[own]!
    try base.finishExchange(
      own,
      arrived: { source in
        if source != rank { events.append("\(number) arrives") }
        arrived(source)
      }, meanwhile: meanwhile)
    events.append("\(number) ends")
  }
}
