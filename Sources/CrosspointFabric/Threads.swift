import Glibc

/// Runs `body(0)` … `body(count − 1)`, each in a new thread, and returns when all have returned.
/// - Parameter missing: called instead of a body for which the system gives no thread, with the error's number.
func inThreads(count: Int, _ body: @escaping @Sendable (Int) -> Void, missing: (Int, Int32) -> Void) {
  var threads: [pthread_t] = []
  for index in 0..<count {
    var thread = pthread_t()
    let job = Unmanaged.passRetained(Job { body(index) })
    let status = pthread_create(&thread, nil, runJob, job.toOpaque())
    if status == 0 {
      threads.append(thread)
    } else {
      job.release()
      missing(index, status)
    }
  }
  for thread in threads { pthread_join(thread, nil) }
}

private final class Job {
  let work: () -> Void
  init(_ work: @escaping () -> Void) { self.work = work }
}

private func runJob(_ argument: UnsafeMutableRawPointer?) -> UnsafeMutableRawPointer? {
  Unmanaged<Job>.fromOpaque(argument!).takeRetainedValue().work()
  return nil
}
