import CrosspointCore
import Foundation

/// Files, whole: read with one clear error, written so that nobody finds half of one.
enum Files {
  static func failure(_ argument: String, _ path: String, _ message: String) -> CrosspointError {
    CrosspointError(.file, operation: "file", argument: argument, "\(path): \(message)")
  }

  /// Writes beside the target, then renames.
  static func write(_ data: Data, to path: String, argument: String) throws(CrosspointError) {
    let url = URL(fileURLWithPath: path)
    do {
      try data.write(to: url, options: .atomic)
    } catch {
      throw failure(argument, path, "cannot be written: check that its folder exists and has room")
    }
  }

  /// Writes one value as JSON with a line feed behind it.
  static func writeJSON(_ value: some Encodable, to path: String, argument: String = "--json") throws(CrosspointError) {
    try write(try json(value), to: path, argument: argument)
  }

  static func json(_ value: some Encodable) throws(CrosspointError) -> Data {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
    do {
      return try encoder.encode(value) + Data("\n".utf8)
    } catch {
      throw failure("--json", "JSON", "a value is not finite")
    }
  }
}
