import Dispatch

/// What one rank's thread tells the others. Whoever waits too long gives up, so that a test fails instead of hanging.
public final class Signal: Sendable {
  private let semaphore = DispatchSemaphore(value: 0)

  public init() {}

  public func raise() { semaphore.signal() }

  /// Whether it was raised, before or while this waited; it stays raised for the next who waits.
  public func wait() -> Bool {
    guard semaphore.wait(timeout: .now() + 20) == .success else { return false }
    semaphore.signal()
    return true
  }
}
