import CrosspointTokens
import Testing

@testable import CrosspointCompression

// snippet: format
/// One bit per element: its sign, times the row's mean magnitude (1-bit SGD without the feedback).
struct SignFormat: RowwiseFormat {
  static let usage = "sign"
  static let members = [SignFormat()]
  let code: UInt16 = 200 | 1 << 8  // a number that no other format has; one bit per element

  func rowBytes(_ hidden: Int) -> Int { 4 + (hidden + 7) / 8 }

  func encode(
    _ row: UnsafePointer<Float>, into out: UnsafeMutableRawPointer, _ codec: RowCodec
  ) {
    let elements = UnsafeBufferPointer(start: row, count: codec.hidden)
    let sum = elements.reduce(0) { $0 + Double($1.magnitude) }
    out.storeBytes(of: Float(sum / Double(codec.hidden)), as: Float.self)
    for byte in 0..<(codec.hidden + 7) / 8 {
      var bits: UInt8 = 0
      for i in 8 * byte..<min(8 * byte + 8, codec.hidden) where elements[i].sign == .minus {
        bits |= 1 << (i % 8)
      }
      out.storeBytes(of: bits, toByteOffset: 4 + byte, as: UInt8.self)
    }
  }

  func decode(_ bytes: UnsafeRawPointer, into row: UnsafeMutablePointer<Float>, _ codec: RowCodec) {
    let mean = bytes.loadUnaligned(as: Float.self)
    for i in 0..<codec.hidden {
      let bits = bytes.load(fromByteOffset: 4 + i / 8, as: UInt8.self)
      row[i] = bits >> (i % 8) & 1 == 1 ? -mean : mean
    }
  }
}
// end

/// The format that docs/extending.md shows; it is in no table.
@Suite struct SignFormatTests {
  @Test func rowsComeBackAsSignsOfTheirMeanMagnitude() throws {
    let rows: [[Float]] = [
      [1, -2, 3, -4, 5, -6, 7, -8, 9], [0, 0, 0, 0, 0, 0, 0, 0, 0], [-1, -1, -1, 2, 2, 2, 2, 2, 2],
    ]
    let codec = try RowCodec(hidden: 9, seed: 0, pool: BufferPool())
    let format = SignFormat()
    #expect(format.rowBytes(9) == 6)
    for row in rows {
      var bytes = [UInt8](repeating: 0xFF, count: format.rowBytes(9))
      var decoded = [Float](repeating: .nan, count: 9)
      bytes.withUnsafeMutableBytes { format.encode(row, into: $0.baseAddress!, codec) }
      bytes.withUnsafeBytes { format.decode($0.baseAddress!, into: &decoded, codec) }
      let mean = row.reduce(0) { $0 + $1.magnitude } / 9
      #expect(decoded == row.map { $0.sign == .minus ? -mean : mean })
    }
  }

  @Test func itsNumberIsItsOwn() {
    #expect(WireFormat.all.allSatisfy { $0.code & 0xFF != SignFormat().code & 0xFF })
  }
}
