import CrosspointCore

/// This rank's part of a collective call: steps in order, up to the first that fails.
///
/// A rank whose part has failed goes through the rest of the call, so that nobody waits for it, but does nothing more until
/// the ranks settle what happened.
///
/// ```swift
/// var attempt = Attempt(problem(with: tokens))
/// let rows = attempt { () throws(CrosspointError) in try leaseRows(count) }   // nil once anything has failed
/// try agreement.settle(attempt.failure, operation: "dispatch")
/// ```
struct Attempt: ~Copyable {
  private(set) var failure: CrosspointError?

  /// - Parameter failure: what is wrong already.
  init(_ failure: CrosspointError? = nil) { self.failure = failure }

  var hasFailed: Bool { failure != nil }

  /// Notes what went wrong outside a step; an earlier failure stays.
  mutating func fail(_ error: CrosspointError?) { failure = failure ?? error }

  /// Does a step, unless an earlier one has failed.
  @discardableResult
  mutating func callAsFunction<Result: ~Copyable>(
    _ step: () throws(CrosspointError) -> Result
  ) -> Result? {
    guard failure == nil else { return nil }
    do throws(CrosspointError) { return try step() } catch {
      failure = error
      return nil
    }
  }
}
