/// The fixed-size form in which a failure travels to the other ranks.
///
/// Layout, little-endian: code UInt32 · rank Int32 (−1: none) · three lengths UInt16 · text. Text beyond the size is cut
/// at a character boundary.
extension CrosspointError {
  /// Bytes of one encoded failure.
  package static let encodedSize = 1024
  private static let textStart = 14

  /// Writes the failure over the first ``encodedSize`` bytes of `bytes`.
  package func encode(into bytes: UnsafeMutableRawBufferPointer) {
    precondition(bytes.count >= Self.encodedSize)
    bytes.storeBytes(of: code.rawValue.littleEndian, as: UInt32.self)
    bytes.storeBytes(of: Int32(truncatingIfNeeded: rank ?? -1).littleEndian, toByteOffset: 4, as: Int32.self)
    var offset = Self.textStart
    for (index, (text, limit)) in [(operation, 64), (argument, 64), (message, 882)].enumerated() {
      var cut = text
      while cut.utf8.count > limit { cut.removeLast() }
      bytes.storeBytes(of: UInt16(cut.utf8.count).littleEndian, toByteOffset: 8 + 2 * index, as: UInt16.self)
      for byte in cut.utf8 {
        bytes[offset] = byte
        offset += 1
      }
    }
  }

  /// Reads what ``encode(into:)`` wrote; `nil` if the code is zero or a length leads outside.
  package init?(decoding bytes: UnsafeRawBufferPointer) {
    guard bytes.count >= Self.encodedSize else { return nil }
    let code = UInt32(littleEndian: bytes.loadUnaligned(as: UInt32.self))
    guard code != 0 else { return nil }
    let rank = Int32(littleEndian: bytes.loadUnaligned(fromByteOffset: 4, as: Int32.self))
    var offset = Self.textStart
    var texts: [String] = []
    for index in 0..<3 {
      let end = offset + Int(UInt16(littleEndian: bytes.loadUnaligned(fromByteOffset: 8 + 2 * index, as: UInt16.self)))
      guard end <= Self.encodedSize else { return nil }
      texts.append(String(decoding: bytes[offset..<end], as: UTF8.self))
      offset = end
    }
    self.init(
      Code(rawValue: code), operation: texts[0], rank: rank < 0 ? nil : Int(rank), argument: texts[1], texts[2])
  }
}
