import Foundation
import Synchronization

/// Ctrl-C, and what schedulers send before they end a job: the run finishes its step, writes its checkpoint and ends.
public enum StopSignal {
  private static let received = Atomic<Int32>(0)

  /// Catches SIGINT, SIGTERM and SIGUSR1 from now on. A second one ends the process at once.
  public static func install() {
    received.store(0, ordering: .relaxed)  // made before a handler can touch it
    for number in [SIGINT, SIGTERM, SIGUSR1] {
      signal(number) { number in
        if StopSignal.received.exchange(number, ordering: .relaxed) != 0 { _exit(128 + number) }
      }
    }
  }

  /// Whether a signal has come.
  public static var isRequested: Bool { received.load(ordering: .relaxed) != 0 }
}
