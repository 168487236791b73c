import CrosspointCore
import CrosspointTokens

/// A wire format: how groups of rows become the body of a frame and back, and what it is called.
///
/// A format, or a family whose members differ in numbers, is one file; ``WireFormat/families`` lists them, and nothing else
/// knows one from another.
protocol RowFormat: Sendable {
  /// The texts of all members, for help and for who misspells one: `rotated:BITS (1 to 8)`.
  static var usage: String { get }
  /// All members, or some where they are too many.
  static var members: [Self] { get }
  /// The member with this text.
  static func named(_ text: String) -> Self?
  /// The member with this ``code``.
  static func coded(_ code: UInt16) -> Self?

  /// What `--wire` takes.
  var text: String { get }
  /// The number that stands for it in a frame: that of the family in the low byte, the member's in the high one.
  var code: UInt16 { get }
  /// Bits per element, scales and means not counted.
  var rate: Double { get }
  /// See ``WireFormat/bound``.
  var bound: Float { get }
  /// Whether rows are rotated: groups may then have a mean row of two bytes per element, and rows signs of their own.
  var rotates: Bool { get }
  /// Whether groups may be marked as centred.
  var centres: Bool { get }
  /// Whether rows that are to be rounded without bias get noise that the receiver takes off again.
  var dithers: Bool { get }
  /// Whether rows are coded relative to what both ends remember of them, if they do; the body then follows its fingerprint.
  var remembers: Bool { get }
  /// Whether the encoder asks which rows are important.
  var weighsRows: Bool { get }

  /// Bytes of a group without its mean row; `nil` where they do not follow from the number of rows.
  func groupBytes(rows: Int, hidden: Int) -> Int?
  /// The most that rows take in this many groups, mean rows not counted.
  func maximumBytes(rows: Int, groups: Int, hidden: Int) -> Int

  func encode(_ groups: [RowSource], to body: inout BodyWriter) throws(CrosspointError)
  func decode(_ groups: [RowTarget], from body: inout BodyReader) throws(CrosspointError)
}

extension RowFormat {
  static func named(_ text: String) -> Self? { members.first { $0.text == text } }
  static func coded(_ code: UInt16) -> Self? { members.first { $0.code == code } }

  var text: String { Self.usage }
  var rate: Double { Double(code >> 8) }
  /// Space for the sum over a row or a group: no such sum can overflow.
  var bound: Float { 0x1p114 }
  var rotates: Bool { false }
  var centres: Bool { rotates }
  var dithers: Bool { false }
  var remembers: Bool { false }
  var weighsRows: Bool { false }
}

/// A format whose groups follow one another, each coded for itself, in bytes that follow from its number of rows.
protocol GroupFormat: RowFormat {
  /// Appends a group; says whether it is centred.
  func encode(_ group: RowSource, to body: inout BodyWriter) throws(CrosspointError) -> Bool
  func decode(_ group: RowTarget, isCentred: Bool, from body: inout BodyReader) throws(CrosspointError)
}

extension GroupFormat {
  func maximumBytes(rows: Int, groups: Int, hidden: Int) -> Int { groupBytes(rows: rows, hidden: hidden)! }

  func encode(_ groups: [RowSource], to body: inout BodyWriter) throws(CrosspointError) {
    for (index, group) in groups.enumerated() {
      let isCentred = try encode(group, to: &body)
      FrameHeader.setGroup(index, rows: group.rows, centred: isCentred, in: body.header)
    }
  }

  func decode(_ groups: [RowTarget], from body: inout BodyReader) throws(CrosspointError) {
    for (index, group) in groups.enumerated() {
      try decode(group, isCentred: FrameHeader.group(index, of: body.header).centred, from: &body)
    }
  }
}

/// A format whose rows are coded each for itself, in as many bytes.
protocol RowwiseFormat: GroupFormat {
  /// The type of rows that it carries as they lie, bit for bit.
  var carries: RowType? { get }
  func rowBytes(_ hidden: Int) -> Int
  func encode(_ row: UnsafePointer<Float>, into out: UnsafeMutableRawPointer, _ codec: RowCodec)
  func decode(_ bytes: UnsafeRawPointer, into row: UnsafeMutablePointer<Float>, _ codec: RowCodec)
}

extension RowwiseFormat {
  var carries: RowType? { nil }
  func groupBytes(rows: Int, hidden: Int) -> Int? { rows * rowBytes(hidden) }

  func encode(_ group: RowSource, to body: inout BodyWriter) throws(CrosspointError) -> Bool {
    let (codec, bytes) = (body.codec, rowBytes(body.hidden))
    if group.first.type == carries {
      for index in 0..<group.rows { try body.append(group.row(index, hidden: body.hidden)) }
      return false
    }
    for index in 0..<group.rows {
      encode(try body.row(index, of: group), into: body.next, codec)
      body.advance(by: bytes)
    }
    return false
  }

  func decode(_ group: RowTarget, isCentred: Bool, from body: inout BodyReader) {
    let (codec, bytes) = (body.codec, rowBytes(body.hidden))
    let isCarried = group.first.type == carries
    for index in 0..<group.rows {
      let coded = body.take(bytes)
      if isCarried {
        group.row(index, hidden: codec.hidden).base.copyMemory(from: coded, byteCount: bytes)
      } else {
        codec.fill(index, of: group) { decode(coded, into: $0, codec) }
      }
    }
  }
}
