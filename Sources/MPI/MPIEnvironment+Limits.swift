import Glibc
import Synchronization

private let realTime = __itimer_which_t(ITIMER_REAL.rawValue)

/// The address of what the process says when a limit passes: made before, since a signal's handler may not allocate.
private let report = Atomic<UInt>(0)
/// The limit in whole seconds.
private let seconds = Atomic<UInt32>(0)

extension MPIEnvironment {
  /// Runs calls that wait inside MPI without a limit: its start, its end, the making of a communicator. When they take too
  /// long the process is ended, since nothing can call a thread back from there.
  ///
  /// A process that is woken (SIGCONT) waits anew: it did not run, or its launcher wakes all ranks to end them.
  ///
  /// SIGALRM and SIGCONT and the timer are in use while `body` runs, and as before when it returns.
  /// - Parameter line: what is then written on standard error.
  package static func bounded<Result, Failure>(
    by limit: Duration, report line: String, _ body: () throws(Failure) -> Result
  ) throws(Failure) -> Result {
    let text = strdup(line + "\n")
    report.store(UInt(bitPattern: text), ordering: .relaxed)
    let (whole, attoseconds) = limit.components
    seconds.store(UInt32(clamping: whole + 1), ordering: .relaxed)
    let passed = signal(SIGALRM) { _ in
      if let line = UnsafePointer<CChar>(bitPattern: report.load(ordering: .relaxed)) {
        _ = write(STDERR_FILENO, line, strlen(line))
      }
      _exit(EXIT_FAILURE)
    }
    let woken = signal(SIGCONT) { _ in alarm(seconds.load(ordering: .relaxed)) }
    // Whoever started this process may have blocked it, and a process inherits that.
    var (ours, mask) = (sigset_t(), sigset_t())
    sigemptyset(&ours)
    sigaddset(&ours, SIGALRM)
    pthread_sigmask(SIG_UNBLOCK, &ours, &mask)
    var timer = itimerval()
    timer.it_value.tv_sec = .init(whole)
    timer.it_value.tv_usec = .init(attoseconds / 1_000_000_000_000)
    var before = itimerval()
    setitimer(realTime, &timer, &before)
    defer {
      signal(SIGCONT, woken)
      setitimer(realTime, &before, nil)
      signal(SIGALRM, passed)
      pthread_sigmask(SIG_SETMASK, &mask, nil)
      free(text)
    }
    return try body()
  }

  /// What MPI maps while it starts. Open MPI 4.1 takes 224 MB, and 4 MB for each rank of its node; with less it fails in
  /// words of its own, crashes or waits for ever, as it comes.
  static var startBytes: Int {
    let ranksOfNode = getenv("OMPI_COMM_WORLD_LOCAL_SIZE").flatMap { Int(String(cString: $0)) } ?? 1
    return (256 + 8 * max(1, min(ranksOfNode, 1 << 16))) << 20
  }

  /// Whether so much address space is free. None of it is used.
  static func hasRoom(for bytes: Int) -> Bool {
    let memory = mmap(nil, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
    guard memory != MAP_FAILED else { return false }
    munmap(memory, bytes)
    return true
  }
}
