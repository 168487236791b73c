import CrosspointCore
import Foundation

/// A whole file.
/// - Throws: `file` naming the path and the system's reason.
func readFile(_ path: String, argument: String) throws(CrosspointError) -> [UInt8] {
  guard let file = fopen(path, "rb") else { throw fileError(argument, path, "cannot be opened") }
  defer { fclose(file) }
  var status = stat()
  guard fstat(fileno(file), &status) == 0, status.st_mode & S_IFMT != S_IFDIR else {
    throw fileError(argument, path, "is not a file", reason: false)
  }
  var bytes: [UInt8] = []
  var chunk = [UInt8](repeating: 0, count: 1 << 20)
  while true {
    let count = fread(&chunk, 1, chunk.count, file)
    guard count > 0 else { break }
    bytes += chunk[..<count]
  }
  guard ferror(file) == 0 else { throw fileError(argument, path, "cannot be read") }
  return bytes
}

/// Writes a whole file or nothing: a temporary file beside it, flushed to the disk, then renamed over it.
/// - Throws: `file`; then whatever was at the path before is still there.
func writeFileAtomically(_ path: String, _ pieces: [UnsafeRawBufferPointer], argument: String) throws(CrosspointError) {
  let temporary = "\(path).\(getpid()).tmp"
  guard let file = fopen(temporary, "wb") else { throw fileError(argument, temporary, "cannot be created") }
  var isGood = true
  for piece in pieces where piece.count > 0 {
    isGood = isGood && fwrite(piece.baseAddress!, 1, piece.count, file) == piece.count
  }
  isGood = isGood && fflush(file) == 0 && fsync(fileno(file)) == 0
  isGood = fclose(file) == 0 && isGood
  guard isGood, rename(temporary, path) == 0 else {
    let error = fileError(argument, path, "cannot be written")
    unlink(temporary)
    throw error
  }
  // The new name itself must survive a power cut, too.
  let folder = open(URL(fileURLWithPath: path).deletingLastPathComponent().path, O_RDONLY)
  if folder >= 0 {
    fsync(folder)
    close(folder)
  }
}

func writeFileAtomically(_ path: String, _ bytes: [UInt8], argument: String) throws(CrosspointError) {
  try bytes.withUnsafeBufferPointer { bytes throws(CrosspointError) in
    try writeFileAtomically(path, [UnsafeRawBufferPointer(bytes)], argument: argument)
  }
}

/// `Encodable` as JSON with sorted keys.
func writeJSON(_ value: some Encodable, to path: String, argument: String) throws(CrosspointError) {
  let encoder = JSONEncoder()
  encoder.outputFormatting = [.sortedKeys, .prettyPrinted, .withoutEscapingSlashes]
  guard var data = try? encoder.encode(value) else {
    throw fileError(argument, path, "would hold a number that is not finite", reason: false)
  }
  data.append(UInt8(ascii: "\n"))
  try writeFileAtomically(path, [UInt8](data), argument: argument)
}

/// A file's failure, with the system's reason in errno unless told otherwise.
func fileError(_ argument: String, _ path: String, _ what: String, reason: Bool = true) -> CrosspointError {
  let why = reason ? ": \(String(cString: strerror(errno)))" : ""
  return CrosspointError(.file, operation: "file", argument: argument, "\(path) \(what)\(why)")
}
