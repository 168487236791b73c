import CrosspointCore
import Glibc

/// Writes a file as a whole, in pieces one after the other.
///
/// Links are followed. A regular file is replaced atomically, or made: its bytes reach the disk before its name leads to
/// them. What is no regular file is written straight to.
/// - Parameter patience: how long the reader of a FIFO may take nothing.
/// - Throws: `file` with the system's reason; then whatever was at the path before is still there, and nothing else.
package func writeFile(
  _ path: String, _ pieces: [UnsafeRawBufferPointer], argument: String, patience: Duration = .seconds(60)
) throws(CrosspointError) {
  switch try FileDestination(path, argument: argument) {
  case .file(let file): try replaceFile(file, pieces, named: path, argument: argument)
  case .stream(let stream):
    let output = try FileOutput(stream: stream, argument: argument, patience: patience)
    for piece in pieces { try output.write(piece) }
  case .descriptor(let number):
    let output = try FileOutput(dup(number), path: path, argument: argument, patience: patience)
    for piece in pieces { try output.write(piece) }
  }
}

package func writeFile(
  _ path: String, _ bytes: [UInt8], argument: String, patience: Duration = .seconds(60)
) throws(CrosspointError) {
  try bytes.withUnsafeBufferPointer { bytes throws(CrosspointError) in
    try writeFile(path, [UnsafeRawBufferPointer(bytes)], argument: argument, patience: patience)
  }
}

/// The new bytes are written to a file without a name, which is gone if the writer is killed. Where the file system has
/// none such, the file is named like the target with `.tmp` behind; the next writer takes over what a killed one has left.
/// - Parameter named: the path as it was given.
private func replaceFile(
  _ path: String, _ pieces: [UnsafeRawBufferPointer], named: String, argument: String
) throws(CrosspointError) {
  let temporary = path + ".tmp"
  let folder = PathParts(path).folder
  let unnamed = openUnnamed(folder)
  let output = try FileOutput(
    unnamed ?? open(temporary, O_WRONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0o666), path: named, argument: argument,
    patience: .zero)
  if unnamed == nil {
    // A killed writer holds no lock any more; one that has just ended has renamed its file.
    guard flock(output.descriptor, LOCK_EX | LOCK_NB) == 0,
      FileStatus(descriptor: output.descriptor)?.inode == FileStatus(temporary)?.inode
    else {
      throw fileError(argument, named, "is being written by another process")
    }
  }
  do throws(CrosspointError) {
    if unnamed == nil, ftruncate(output.descriptor, 0) != 0 {
      throw fileError(argument, named, "cannot be written", cause: errno)
    }
    if let status = FileStatus(path) { fchmod(output.descriptor, status.mode & 0o777) }
    for piece in pieces { try output.write(piece) }
    try output.flush()
    if unnamed != nil {
      unlink(temporary)  // what a writer left that was killed just here
      guard linkat(AT_FDCWD, "/proc/self/fd/\(output.descriptor)", AT_FDCWD, temporary, AT_SYMLINK_FOLLOW) == 0 else {
        throw fileError(argument, named, "cannot be written", cause: errno)
      }
    }
    guard rename(temporary, path) == 0 else { throw fileError(argument, named, "cannot be written", cause: errno) }
  } catch {
    unlink(temporary)
    throw error
  }
  // The new name itself must survive a power cut, too.
  let names = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
  if names >= 0 {
    fsync(names)
    close(names)
  }
}

/// A file without a name in a folder; `nil` where there is no such thing.
private func openUnnamed(_ folder: String) -> Int32? {
  // O_TMPFILE, which glibc's headers give as an expression that Swift does not import.
  let flag: Int32 = 0o20_000_000 | O_DIRECTORY
  let descriptor = open(folder, flag | O_WRONLY | O_CLOEXEC, 0o666)
  return descriptor >= 0 ? descriptor : nil
}
