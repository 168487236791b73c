import CrosspointCore
import Glibc

/// A file's failure: what is wrong with which path, given as which argument.
/// - Parameter cause: the system's error number, if that says why.
package func fileError(
  _ argument: String, _ path: String, _ what: String, cause: Int32? = nil
) -> CrosspointError {
  let why = cause.map { ": \(String(cString: strerror($0)))" } ?? ""
  return CrosspointError(.file, operation: "file", argument: argument, "\(path) \(what)\(why)")
}

/// What `stat` says of a path, links followed.
struct FileStatus {
  let mode: mode_t
  let size: Int
  /// Which file of its file system.
  let inode: UInt64

  /// `nil` where there is nothing, with the reason in errno.
  init?(_ path: String) {
    var status = stat()
    guard stat(path, &status) == 0 else { return nil }
    self.init(status)
  }

  init?(descriptor: Int32) {
    var status = stat()
    guard fstat(descriptor, &status) == 0 else { return nil }
    self.init(status)
  }

  private init(_ status: stat) {
    mode = status.st_mode
    size = Int(status.st_size)
    inode = UInt64(status.st_ino)
  }

  var isRegular: Bool { mode & S_IFMT == S_IFREG }

  var kind: String {
    switch mode & S_IFMT {
    case S_IFREG: "a regular file"
    case S_IFDIR: "a folder"
    case S_IFIFO: "a FIFO"
    case S_IFCHR: "a character device"
    case S_IFBLK: "a block device"
    case S_IFSOCK: "a socket"
    default: "no file"
    }
  }
}
