import Foundation
import Synchronization

/// Ctrl-C, and what schedulers send before they end a job: the run finishes its step, writes its checkpoint and ends.
///
/// A run that does not get so far is ended all the same: by a second signal at once, and by the first when the run does not
/// ask for it within a bound.
package enum StopSignal {
  private static let received = Atomic<Int32>(0)
  private static let seconds = Atomic<UInt32>(0)
  /// The address of what the process says when the bound has passed: made before, since a signal's handler may not
  /// allocate, and never freed.
  private static let report = Atomic<UInt>(0)

  /// Catches SIGINT, SIGTERM and SIGUSR1 from now on. Threads of one process may all call it.
  ///
  /// - Parameters:
  ///   - bound: whole seconds between the signal, or a call of ``check()`` after it, and the next such call.
  ///   - line: what is written on standard error before the process is ended because they have passed.
  package static func install(bound: UInt32, report line: String) {
    // Both are made before a handler can touch them.
    seconds.store(max(1, bound), ordering: .relaxed)
    report.store(UInt(bitPattern: strdup(line + "\n")), ordering: .relaxed)
    signal(SIGALRM) { _ in
      if let line = UnsafePointer<CChar>(bitPattern: StopSignal.report.load(ordering: .relaxed)) {
        _ = write(STDERR_FILENO, line, strlen(line))
      }
      _exit(128 + StopSignal.received.load(ordering: .relaxed))
    }
    // Whoever started this process may have blocked them, and a process inherits that.
    var ours = sigset_t()
    sigemptyset(&ours)
    for number in [SIGINT, SIGTERM, SIGUSR1, SIGALRM] { sigaddset(&ours, number) }
    pthread_sigmask(SIG_UNBLOCK, &ours, nil)
    for number in [SIGINT, SIGTERM, SIGUSR1] {
      signal(number) { number in
        if StopSignal.received.exchange(number, ordering: .relaxed) != 0 { _exit(128 + number) }
        alarm(StopSignal.seconds.load(ordering: .relaxed))
      }
    }
  }

  /// Whether a signal has come. If so, the bound begins anew: a run that asks is alive.
  @discardableResult
  package static func check() -> Bool {
    guard received.load(ordering: .relaxed) != 0 else { return false }
    alarm(seconds.load(ordering: .relaxed))
    return true
  }
}
