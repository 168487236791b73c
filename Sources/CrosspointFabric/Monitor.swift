import Glibc

/// A lock with one condition: pthread's pair, waiting on the monotonic clock.
final class Monitor: @unchecked Sendable {
  private let mutex = UnsafeMutablePointer<pthread_mutex_t>.allocate(capacity: 1)
  private let changed = UnsafeMutablePointer<pthread_cond_t>.allocate(capacity: 1)

  init() {
    var attributes = pthread_condattr_t()
    pthread_condattr_init(&attributes)
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC)
    pthread_cond_init(changed, &attributes)
    pthread_condattr_destroy(&attributes)
    pthread_mutex_init(mutex, nil)
  }

  deinit {
    pthread_cond_destroy(changed)
    pthread_mutex_destroy(mutex)
    changed.deallocate()
    mutex.deallocate()
  }

  func lock() { pthread_mutex_lock(mutex) }
  func unlock() { pthread_mutex_unlock(mutex) }
  /// Wakes every waiting thread.
  func broadcast() { pthread_cond_broadcast(changed) }
  /// Releases the lock until a broadcast (or without cause) and takes it again.
  func wait() { pthread_cond_wait(changed, mutex) }

  /// ``wait()``, but not past `time`.
  func wait(until time: ContinuousClock.Instant) {
    let (seconds, attoseconds) = (time - .now).components
    guard seconds >= 0, attoseconds >= 0 else { return }
    var end = timespec()
    clock_gettime(CLOCK_MONOTONIC, &end)
    let nanoseconds = end.tv_nsec + Int(attoseconds / 1_000_000_000)
    // A day is as good as for ever: callers read the clock again.
    end.tv_sec += Int(min(seconds, 86_400)) + nanoseconds / 1_000_000_000
    end.tv_nsec = nanoseconds % 1_000_000_000
    pthread_cond_timedwait(changed, mutex, &end)
  }
}
