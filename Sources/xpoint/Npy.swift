import CrosspointCore
import CrosspointFiles
import CrosspointTokens

/// Arrays in NumPy's file format: float32 rows and integer vectors, C order, little-endian.
///
/// A file is believed only as far as its real length vouches for it: sizes are checked before memory is taken.
enum Npy {
  /// The longest header read; NumPy itself writes far less than this.
  private static let maximumHeaderBytes = 65_536

  /// Float32 rows `[rows, hidden]`.
  static func readRows(_ path: String, argument: String) throws(CrosspointError) -> TokenBatch {
    let file = try OpenFile(path, argument: argument)
    guard file.header.type == "<f4" else {
      throw file.refusal("holds \(file.header.type), float32 (<f4) expected: save X.astype(numpy.float32)")
    }
    guard file.header.shape.count == 2, file.header.shape[1] > 0 else {
      throw file.refusal("has the shape \(file.header.shape), [rows, hidden] expected")
    }
    try file.checkLength(elementSize: 4)
    let batch = try TokenBatch(
      uninitializedRows: file.header.shape[0], hidden: file.header.shape[1], pool: BufferPool())
    try file.readElements(into: UnsafeMutableRawBufferPointer(batch.elements))
    return batch
  }

  /// Float32 rows of a file that must hold some.
  static func readSomeRows(_ path: String, argument: String) throws(CrosspointError) -> TokenBatch {
    let batch = try readRows(path, argument: argument)
    guard batch.rows > 0 else { throw fileError(argument, path, "holds no rows to measure with") }
    return batch
  }

  /// Int32 or int64 values, each of which must fit 32 bits, and their shape.
  /// - Parameter dimensions: what each is called; the file has as many.
  static func readIntegers(
    _ path: String, argument: String, dimensions: [String] = ["rows"]
  ) throws(CrosspointError) -> (shape: [Int], values: [Int32]) {
    let file = try OpenFile(path, argument: argument)
    let shape = file.header.shape
    guard shape.count == dimensions.count else {
      throw file.refusal("has the shape \(shape), [\(dimensions.joined(separator: ", "))] expected")
    }
    switch file.header.type {
    case "<i4":
      return (shape, try file.elements(repeating: Int32(0)))
    case "<i8":
      var values: [Int32] = []
      for wide in try file.elements(repeating: Int64(0)) {
        guard let value = Int32(exactly: wide) else { throw file.refusal("\(wide) does not fit 32 bits") }
        values.append(value)
      }
      return (shape, values)
    default:
      throw file.refusal("holds \(file.header.type), int32 (<i4) expected: save R.astype(numpy.int32)")
    }
  }

  /// Writes float32 rows as version 1.0, all or nothing.
  static func write(_ batch: borrowing TokenBatch, to path: String, argument: String) throws(CrosspointError) {
    let elements = UnsafeRawBufferPointer(batch.elements)
    let header = npyHeader("<f4", shape: [batch.rows, batch.hidden])
    try header.withUnsafeBufferPointer { header throws(CrosspointError) in
      try writeFile(path, [UnsafeRawBufferPointer(header), elements], argument: argument)
    }
  }

  /// A file whose header has been read.
  private final class OpenFile {
    let header: NpyHeader
    private let path: String
    private let argument: String
    private let file: FileReader
    private let bytesBehindHeader: Int

    init(_ path: String, argument: String) throws(CrosspointError) {
      func refusal(_ message: String) -> CrosspointError { fileError(argument, path, message) }
      let file = try FileReader(path, argument: argument)
      self.path = path
      self.argument = argument
      self.file = file
      guard file.size >= 12 else { throw refusal("is too short for a NumPy file") }
      let prefix = try file.read(10)
      guard prefix.starts(with: [0x93] + Array("NUMPY".utf8)) else { throw refusal("is not a NumPy .npy file") }
      let version = Int(prefix[6])
      guard (1...3).contains(version), prefix[7] == 0 else {
        throw refusal("has NumPy's format \(version).\(prefix[7]); 1.0, 2.0 and 3.0 are known")
      }
      var length = Int(prefix[8]) | Int(prefix[9]) << 8
      var start = 10
      if version > 1 {
        let upper = try file.read(2)
        length |= Int(upper[0]) << 16 | Int(upper[1]) << 24
        start = 12
      }
      guard length <= Npy.maximumHeaderBytes else {
        throw refusal("has a header of \(length) bytes; at most \(Npy.maximumHeaderBytes) are read")
      }
      let text = try file.read(length)
      do throws(NpyHeader.Malformed) { header = try NpyHeader(parsing: text) } catch {
        throw refusal("cannot be understood: \(error.message)")
      }
      guard !header.isFortranOrder else {
        throw refusal("is in Fortran order: save numpy.ascontiguousarray(X)")
      }
      bytesBehindHeader = file.size - start - length
    }

    func refusal(_ message: String) -> CrosspointError { fileError(argument, path, message) }

    /// Whether the file is exactly as long as its shape says.
    func checkLength(elementSize: Int) throws(CrosspointError) {
      var bytes = elementSize
      for dimension in header.shape {
        let (product, overflow) = bytes.multipliedReportingOverflow(by: dimension)
        guard !overflow else { throw refusal("has the shape \(header.shape), which is larger than any memory") }
        bytes = product
      }
      guard bytes == bytesBehindHeader else {
        throw refusal(
          "has \(bytesBehindHeader) bytes where its shape \(header.shape) takes \(bytes): "
            + (bytesBehindHeader < bytes ? "it is truncated" : "something stands behind its array"))
      }
    }

    func elements<T: BitwiseCopyable>(repeating zero: T) throws(CrosspointError) -> [T] {
      try checkLength(elementSize: MemoryLayout<T>.size)
      try requireMemory(bytes: bytesBehindHeader, operation: "file", argument: argument)
      var values = Array(repeating: zero, count: bytesBehindHeader / MemoryLayout<T>.size)
      try values.withUnsafeMutableBufferPointer { buffer throws(CrosspointError) in
        try readElements(into: UnsafeMutableRawBufferPointer(buffer))
      }
      return values
    }

    func readElements(into bytes: UnsafeMutableRawBufferPointer) throws(CrosspointError) { try file.fill(bytes) }
  }
}
