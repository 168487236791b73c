/// Splits elapsed time into laps.
struct Stopwatch {
  private var last = ContinuousClock.now

  /// Seconds since the last call, or since the start.
  mutating func lap() -> Double {
    let now = ContinuousClock.now
    defer { last = now }
    return (now - last) / .seconds(1)
  }
}
