import CrosspointCore
import Glibc

/// Appends lines to a file, a device or a FIFO.
///
/// A file never ends in a part of a line: what a full disk has taken of one is cut off again.
package final class LineWriter {
  private let path: String
  private let argument: String
  private let output: FileOutput
  /// Of a regular file: where its last whole line ends.
  private var end: Int?

  /// Begins a file anew, and it only replaces what was there once these bytes are in it.
  /// - Parameters:
  ///   - kept: whole lines to begin with; what is no regular file does not get them.
  ///   - patience: how long the reader of a FIFO may take nothing.
  /// - Throws: `file` with the system's reason.
  package init(
    _ path: String, argument: String, keeping kept: [UInt8] = [], patience: Duration = .seconds(60)
  ) throws(CrosspointError) {
    self.path = path
    self.argument = argument
    switch try FileDestination(path, argument: argument) {
    case .file(let file):
      try writeFile(path, kept, argument: argument)
      output = try FileOutput(
        open(file, O_WRONLY | O_APPEND | O_CLOEXEC), path: path, argument: argument, patience: patience)
      end = kept.count
    case .stream(let stream): output = try FileOutput(stream: stream, argument: argument, patience: patience)
    case .descriptor(let number):
      output = try FileOutput(dup(number), path: path, argument: argument, patience: patience)
    }
  }

  /// - Parameter line: without its line feed.
  /// - Throws: `file` with the system's reason.
  package func append(_ line: some Collection<UInt8>) throws(CrosspointError) {
    let bytes = Array(line) + [UInt8(ascii: "\n")]
    do throws(CrosspointError) {
      try output.write(bytes)
    } catch {
      if let end { ftruncate(output.descriptor, off_t(end)) }
      throw error
    }
    end = end.map { $0 + bytes.count }
  }
}
