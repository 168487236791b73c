/// Splits elapsed time into laps.
package struct Stopwatch {
  private var last = ContinuousClock.now

  package init() {}

  /// Seconds since the last call, or since the start.
  package mutating func lap() -> Double {
    let now = ContinuousClock.now
    defer { last = now }
    return (now - last) / .seconds(1)
  }
}
