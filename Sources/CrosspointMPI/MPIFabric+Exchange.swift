import CrosspointCore
import CrosspointFabric
import Glibc
import MPI

/// Polls without progress before the processor is offered to other ranks, which may share it. Measured: more of them cost
/// twice the time where four ranks share two cores, and gain nothing where each has its own.
private let spinsBeforeYield = 2
/// A rank that has not polled for so long did not run: it was stopped, or its processor was another's.
private let absence = Duration.milliseconds(500)
/// How often the program is asked whether a rank should wait on.
private let askInterval = Duration.milliseconds(50)

extension MPIFabric {
  public func beginExchange(
    send: [UnsafeRawBufferPointer], receive: [UnsafeMutableRawBufferPointer], slack: Int, operation: StaticString
  ) throws(CrosspointError) -> Int {
    precondition(
      send.count.isMultiple(of: rankCount) && send.count == receive.count,
      "\(send.count) blocks to send to and \(receive.count) to receive from \(rankCount) ranks")
    precondition(slack == 0 || send.count == rankCount, "one block for each rank, where lengths may differ")
    if let failure { throw failure }
    sequence += 1
    let exchange = idle.popLast() ?? PostedExchange(on: self)
    underWay.append(exchange)
    do throws(CrosspointError) {
      try exchange.begin(sequence, send, receive, slack, operation)
      // At once: whoever is kept by what follows has sent.
      _ = try progress()
    } catch {
      throw fail(error)
    }
    return sequence
  }

  public func finishExchange(
    _ number: Int, arrived: (_ source: Int) -> Void, meanwhile: () -> Bool
  ) throws(CrosspointError) {
    if let failure { throw failure }
    guard let index = underWay.firstIndex(where: { $0.number == number }) else {
      preconditionFailure("exchange \(number) is not under way")
    }
    let exchange = underWay[index]
    do throws(CrosspointError) {
      try wait(for: exchange, arrived, meanwhile)
    } catch {
      throw fail(error)
    }
    exchange.end()
    idle.append(underWay.remove(at: index))
  }

  /// Lets all that is under way go on, the first that was begun first. Whether anything has moved.
  private func progress() throws(CrosspointError) -> Bool {
    var hasMoved = false
    for exchange in underWay where !exchange.isOver { hasMoved = try exchange.progress() || hasMoved }
    return hasMoved
  }

  /// The fabric is not to be used again.
  private func fail(_ error: CrosspointError) -> CrosspointError {
    for exchange in underWay { exchange.abandon() }
    failure = error
    node.memory?.fail()
    return error
  }

  /// Receives what comes until an exchange is over, and works while nothing does. What is wrong with what came ends the work
  /// at once.
  private func wait(
    for exchange: PostedExchange, _ arrived: (_ source: Int) -> Void, _ meanwhile: () -> Bool
  ) throws(CrosspointError) {
    var expiry = ContinuousClock.now + deadline
    var hasWork = true
    var idle = 0
    var polled = ContinuousClock.now
    _ = exchange.reportArrivals(arrived)
    while !exchange.isOver {
      idle += 1
      if idle == 1 { polled = .now }
      if try progress() {
        idle = 0
        if exchange.reportArrivals(arrived) { hasWork = true }
      }
      if idle > 0, hasWork, exchange.fault == nil {
        let start = ContinuousClock.now
        hasWork = meanwhile()
        // Its own time is nobody's silence, and what came in it is looked for before anybody is called silent.
        expiry += .now - start
        idle = 0
        continue
      }
      if idle > spinsBeforeYield {
        let now = ContinuousClock.now
        // Nor is its own absence: a rank that is woken has yet to see what came meanwhile.
        if now - polled > absence { expiry += now - polled }
        polled = now
        if now >= expiry { throw exchange.fault ?? exchange.expired() }
        if now - asked > askInterval { try askWhetherToStop(now, exchange.operation) }
        for exchange in underWay where exchange.unsent > 0 { exchange.passOver(now) }
        sched_yield()
      }
    }
    if let fault = exchange.fault { throw fault }
  }

  private func askWhetherToStop(_ now: ContinuousClock.Instant, _ operation: StaticString) throws(CrosspointError) {
    asked = now
    guard isInterrupted?() == true else { return }
    throw CrosspointError(
      .interrupted, operation: operation.description, rank: rank, argument: "isInterrupted",
      "the program asked to stop while rank \(rank) waited for others")
  }
}
