import CrosspointCore
import Glibc

/// A regular file, open for reading.
///
/// Anything else is refused at once and by name: a FIFO without a writer would block for ever, a device need not end.
/// The size that the file has when it is opened bounds what is read, and so the memory that reading takes.
package final class FileReader {
  /// Bytes of the whole file.
  package let size: Int
  private let path: String
  private let argument: String
  private let descriptor: Int32

  /// - Throws: `file` naming the path and why it cannot be read.
  package init(_ path: String, argument: String) throws(CrosspointError) {
    // Without O_NONBLOCK opening a FIFO waits for its writer.
    descriptor = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC)
    guard descriptor >= 0 else { throw fileError(argument, path, "cannot be opened", cause: errno) }
    guard let status = FileStatus(descriptor: descriptor) else {
      let cause = errno
      close(descriptor)
      throw fileError(argument, path, "cannot be read", cause: cause)
    }
    guard status.isRegular else {
      close(descriptor)
      throw fileError(argument, path, "is \(status.kind); only a regular file can be read")
    }
    self.path = path
    self.argument = argument
    size = status.size
  }

  deinit { close(descriptor) }

  /// The next `count` bytes.
  /// - Throws: `file` if the file ends before, `outOfMemory` if there is no memory for them.
  package func read(_ count: Int) throws(CrosspointError) -> [UInt8] {
    try requireMemory(bytes: count, operation: "file", argument: argument)
    var bytes = [UInt8](repeating: 0, count: count)
    try bytes.withUnsafeMutableBufferPointer { bytes throws(CrosspointError) in
      try fill(UnsafeMutableRawBufferPointer(bytes))
    }
    return bytes
  }

  /// The next bytes, as many as fill the memory.
  /// - Throws: `file` if the file ends before.
  package func fill(_ bytes: UnsafeMutableRawBufferPointer) throws(CrosspointError) {
    var filled = 0
    while filled < bytes.count {
      let count = readSome(descriptor, bytes.baseAddress! + filled, bytes.count - filled)
      if count < 0, errno == EINTR { continue }
      guard count >= 0 else { throw fileError(argument, path, "cannot be read", cause: errno) }
      guard count > 0 else { throw fileError(argument, path, "ends early: it is cut short, or was while it was read") }
      filled += count
    }
  }
}

/// A whole regular file.
/// - Throws: as ``FileReader``.
package func readFile(_ path: String, argument: String) throws(CrosspointError) -> [UInt8] {
  let file = try FileReader(path, argument: argument)
  return try file.read(file.size)
}

/// The system's call, where a method of the same name hides it.
private func readSome(_ descriptor: Int32, _ bytes: UnsafeMutableRawPointer, _ count: Int) -> Int {
  read(descriptor, bytes, count)
}
