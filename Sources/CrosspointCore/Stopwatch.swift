import Glibc

/// Splits elapsed time into laps. It reads the system's clock itself: `ContinuousClock` takes three times as long, which shows
/// where an exchange is small.
package struct Stopwatch {
  private var last = time(of: CLOCK_MONOTONIC)

  package init() {}

  /// Seconds since the last call, or since the start.
  package mutating func lap() -> Double {
    let now = time(of: CLOCK_MONOTONIC)
    defer { last = now }
    return now - last
  }
}

/// Seconds that this thread has computed so far: what others do on the same core meanwhile does not count.
package func threadSeconds() -> Double { time(of: CLOCK_THREAD_CPUTIME_ID) }

/// Seconds; to some 10 picoseconds after a day, to nanoseconds after a year.
private func time(of clock: clockid_t) -> Double {
  var time = timespec()
  clock_gettime(clock, &time)
  return Double(time.tv_sec) + Double(time.tv_nsec) * 1e-9
}
