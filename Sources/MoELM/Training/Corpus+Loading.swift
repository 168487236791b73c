import Crosspoint
import CrosspointFiles
import Foundation

extension Corpus {
  /// Reads a file, or without one the King James Bible from its Debian package, on rank 0, and hands it to all ranks.
  /// Collective.
  ///
  /// - Throws: `file` where nothing can be read, `invalidArgument` for a text too short for one batch; on every rank.
  package static func load(
    path: String?, context: Int, batch: Int, fabric: any Fabric
  ) throws(CrosspointError) -> Corpus {
    let bytes = try fabric.shareFromRoot(operation: "data") { () throws(CrosspointError) in
      if let path { try readFile(path, argument: "data") } else { try kingJamesBible() }
    }
    return try fabric.together(operation: "data") { () throws(CrosspointError) in
      try Corpus(bytes, context: context, batch: batch)
    }
  }

  private static func kingJamesBible() throws(CrosspointError) -> [UInt8] {
    let missing = CrosspointError(
      .file, operation: "file", argument: "data",
      "the King James Bible is not installed: run `apt-get install bible-kjv`, or give a text with --data FILE")
    guard let pipe = popen("bible -f gen1:1-rev22:21 2>/dev/null", "r") else { throw missing }
    var text: [UInt8] = []
    var chunk = [UInt8](repeating: 0, count: 1 << 16)
    while true {
      let count = fread(&chunk, 1, chunk.count, pipe)
      guard count > 0 else { break }
      text += chunk[..<count]
    }
    guard pclose(pipe) == 0, !text.isEmpty else { throw missing }
    return text
  }
}
