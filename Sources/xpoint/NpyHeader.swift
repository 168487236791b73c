/// What the text header of a NumPy file says. Source: numpy.lib.format, versions 1.0, 2.0 and 3.0.
struct NpyHeader: Equatable {
  /// For example `<f4`.
  var type: String
  var isFortranOrder: Bool
  var shape: [Int]

  struct Malformed: Error {
    var message: String
  }

  /// Reads the dictionary literal `{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }`: these keys, each once.
  init(parsing text: some Collection<UInt8>) throws(Malformed) {
    var scanner = Scanner(rest: Array(text)[...])
    var type: String?
    var order: Bool?
    var shape: [Int]?
    try scanner.expect("{")
    while !scanner.take("}") {
      let key = try scanner.string()
      try scanner.expect(":")
      switch key {
      case "descr" where type == nil: type = try scanner.string()
      case "fortran_order" where order == nil: order = try scanner.boolean()
      case "shape" where shape == nil: shape = try scanner.tuple()
      default: throw Malformed(message: "unexpected or repeated key '\(key)'")
      }
      if !scanner.take(",") {
        try scanner.expect("}")
        break
      }
    }
    guard scanner.isAtEnd else { throw Malformed(message: "text behind the header's dictionary") }
    guard let type, let order, let shape else { throw Malformed(message: "descr, fortran_order or shape is missing") }
    self.type = type
    isFortranOrder = order
    self.shape = shape
  }
}

private struct Scanner {
  var rest: ArraySlice<UInt8>

  var isAtEnd: Bool {
    mutating get {
      skipSpace()
      return rest.isEmpty
    }
  }

  mutating func take(_ token: StaticString) -> Bool {
    skipSpace()
    let bytes = UnsafeBufferPointer(start: token.utf8Start, count: token.utf8CodeUnitCount)
    guard rest.starts(with: bytes) else { return false }
    rest = rest.dropFirst(bytes.count)
    return true
  }

  mutating func expect(_ token: StaticString) throws(NpyHeader.Malformed) {
    guard take(token) else { throw NpyHeader.Malformed(message: "'\(token)' expected in the header") }
  }

  /// A quoted string without escapes.
  mutating func string() throws(NpyHeader.Malformed) -> String {
    skipSpace()
    guard let quote = rest.first, quote == UInt8(ascii: "'") || quote == UInt8(ascii: "\"") else {
      throw NpyHeader.Malformed(message: "a quoted string expected in the header (structured types are not supported)")
    }
    let body = rest.dropFirst().prefix { $0 != quote }
    guard body.endIndex < rest.endIndex else { throw NpyHeader.Malformed(message: "unterminated string in the header") }
    rest = rest[(body.endIndex + 1)...]
    return String(decoding: body, as: UTF8.self)
  }

  mutating func boolean() throws(NpyHeader.Malformed) -> Bool {
    if take("True") { return true }
    try expect("False")
    return false
  }

  /// `()`, `(3,)`, `(3, 4)`, …
  mutating func tuple() throws(NpyHeader.Malformed) -> [Int] {
    try expect("(")
    var values: [Int] = []
    while !take(")") {
      skipSpace()
      let digits = rest.prefix { $0 >= UInt8(ascii: "0") && $0 <= UInt8(ascii: "9") }
      guard let value = Int(String(decoding: digits, as: UTF8.self)) else {
        throw NpyHeader.Malformed(message: "a dimension is no number that fits")
      }
      values.append(value)
      rest = rest.dropFirst(digits.count)
      if !take(",") {
        try expect(")")
        break
      }
    }
    return values
  }

  private mutating func skipSpace() {
    rest = rest.drop { $0 == UInt8(ascii: " ") || $0 == UInt8(ascii: "\n") || $0 == UInt8(ascii: "\t") }
  }
}
