import CrosspointCore
import Glibc

/// What a path to be written leads to, links followed.
package enum FileDestination: Equatable {
  /// A regular file, or nothing yet: replaced as a whole. The path holds no link.
  case file(path: String)
  /// Anything that is written straight to: a device, a FIFO.
  case stream(path: String)
  /// An open descriptor of this process, such as /dev/stdout: what it leads to is not opened anew, which would begin at
  /// the start of a file that others are writing.
  case descriptor(Int32)

  /// - Throws: `file` for a folder, and where nothing can be made.
  package init(_ path: String, argument: String) throws(CrosspointError) {
    func failure(_ what: String, _ cause: Int32?) -> CrosspointError { fileError(argument, path, what, cause: cause) }
    let descriptors = Self.resolved("/proc/self/fd")
    var name = path
    // As many links as Linux follows.
    for _ in 0..<40 {
      let parts = PathParts(name)
      guard !parts.name.isEmpty, let parent = Self.resolved(parts.folder) else {
        throw failure("cannot be written", name.isEmpty ? ENOENT : errno)
      }
      if parent == descriptors, let descriptor = Int32(parts.name) {
        self = .descriptor(descriptor)
        return
      }
      let full = PathParts.join(parent, parts.name)
      if let link = Self.link(full) {
        name = link.hasPrefix("/") ? link : PathParts.join(parent, link)
        continue
      }
      guard let status = FileStatus(full) else {
        guard errno == ENOENT, access(parent, W_OK | X_OK) == 0 else { throw failure("cannot be written", errno) }
        self = .file(path: full)
        return
      }
      guard status.mode & S_IFMT != S_IFDIR else { throw failure("is a folder", nil) }
      guard status.isRegular else {
        self = .stream(path: full)
        return
      }
      // Replacing a file asks for the right to write in its folder only.
      guard access(full, W_OK) == 0, access(parent, W_OK | X_OK) == 0 else { throw failure("cannot be written", errno) }
      self = .file(path: full)
      return
    }
    throw failure("cannot be written", ELOOP)
  }

  /// A path without links; `nil` where there is none.
  private static func resolved(_ path: String) -> String? {
    guard let real = realpath(path, nil) else { return nil }
    defer { free(real) }
    return String(cString: real)
  }

  /// Where a link leads; `nil` for what is none.
  private static func link(_ path: String) -> String? {
    var target = [CChar](repeating: 0, count: Int(PATH_MAX) + 1)
    let length = readlink(path, &target, target.count - 1)
    return length < 0 ? nil : String(decoding: target[..<length].map(UInt8.init(bitPattern:)), as: UTF8.self)
  }
}
