import CrosspointCore
import Glibc

/// An open file, device or FIFO to write to.
final class FileOutput {
  let descriptor: Int32
  private let path: String
  private let argument: String
  private let patience: Duration

  /// Takes over a descriptor.
  /// - Parameter patience: how long a reader may take nothing.
  init(_ descriptor: Int32, path: String, argument: String, patience: Duration) throws(CrosspointError) {
    guard descriptor >= 0 else { throw fileError(argument, path, "cannot be opened", cause: errno) }
    self.descriptor = descriptor
    self.path = path
    self.argument = argument
    self.patience = patience
  }

  /// Opens what is no regular file. A FIFO must have its reader already.
  convenience init(stream path: String, argument: String, patience: Duration) throws(CrosspointError) {
    try self.init(
      open(path, O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC), path: path, argument: argument, patience: patience)
  }

  deinit { close(descriptor) }

  /// - Throws: `file` with the system's reason; some of the bytes may have been written.
  func write(_ bytes: UnsafeRawBufferPointer) throws(CrosspointError) {
    var written = 0
    while written < bytes.count {
      let count = withoutSignals {
        writeSome(descriptor, bytes.baseAddress! + written, bytes.count - written)
      }
      if count >= 0 {
        written += count
      } else if errno == EAGAIN {
        var state = pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0)
        guard poll(&state, 1, Int32(clamping: Int(patience / .milliseconds(1)))) != 0 else {
          throw fileError(argument, path, "has a reader that has taken nothing for \(patience)")
        }
      } else if errno != EINTR {
        throw fileError(argument, path, "cannot be written", cause: errno)
      }
    }
  }

  func write(_ bytes: [UInt8]) throws(CrosspointError) {
    try bytes.withUnsafeBufferPointer { bytes throws(CrosspointError) in try write(UnsafeRawBufferPointer(bytes)) }
  }

  /// To the disk itself.
  func flush() throws(CrosspointError) {
    guard fsync(descriptor) == 0 else { throw fileError(argument, path, "cannot be written", cause: errno) }
  }

  /// A reader that has gone, and a limit on the size of files, are errors of the write, no signals that end the process.
  private func withoutSignals(_ body: () -> Int) -> Int {
    var (signals, before, pending) = (sigset_t(), sigset_t(), sigset_t())
    sigemptyset(&signals)
    sigpending(&pending)
    for signal in [SIGPIPE, SIGXFSZ] where sigismember(&pending, signal) == 0 { sigaddset(&signals, signal) }
    pthread_sigmask(SIG_BLOCK, &signals, &before)
    let result = body()
    let cause = errno
    var now = timespec()
    if result < 0, cause == EPIPE || cause == EFBIG { _ = sigtimedwait(&signals, nil, &now) }
    pthread_sigmask(SIG_SETMASK, &before, nil)
    errno = cause
    return result
  }
}

/// The system's call, where a method of the same name hides it.
private func writeSome(_ descriptor: Int32, _ bytes: UnsafeRawPointer, _ count: Int) -> Int {
  write(descriptor, bytes, count)
}
