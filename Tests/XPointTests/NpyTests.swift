import CrosspointCore
import CrosspointTestSupport
import CrosspointTokens
import Foundation
import Testing

@testable import xpoint

extension TemporaryFolder {
  func put(_ data: Data, _ name: String = "X.npy") throws -> String {
    try data.write(to: URL(fileURLWithPath: file(name)))
    return file(name)
  }
}

/// A file as NumPy writes it, made by hand.
func npy(version: UInt8 = 1, _ header: String, _ body: [UInt8] = []) -> Data {
  let text = Array(header.utf8)
  let length = version == 1 ? [UInt8(text.count & 255), UInt8(text.count >> 8)] : [UInt8(text.count), 0, 0, 0]
  return Data([0x93] + Array("NUMPY".utf8) + [version, 0] + length + text + body)
}

@Test func rowsComeBackFromAFileBitForBit() throws {
  let folder = try TemporaryFolder()
  for (rows, hidden) in [(3, 5), (0, 4), (1, 1)] {
    let values = (0..<rows * hidden).map { index in index == 1 ? Float.nan : Float(index) - 0.1 }
    try Npy.write(TokenBatch(values, hidden: hidden), to: folder.file("X.npy"), argument: "--output")
    let read = try Npy.readRows(folder.file("X.npy"), argument: "--input")
    #expect(read.rows == rows && read.hidden == hidden)
    #expect(read.array.map(\.bitPattern) == values.map(\.bitPattern))
    let size = try Data(contentsOf: URL(fileURLWithPath: folder.file("X.npy"))).count
    #expect((size - 4 * rows * hidden).isMultiple(of: 64), "NumPy aligns the data to 64 bytes")
  }
}

@Test func everyVersionAndEveryHeaderLayoutIsRead() throws {
  let folder = try TemporaryFolder()
  let body = [Float(1), -2].flatMap { withUnsafeBytes(of: $0.bitPattern.littleEndian) { Array($0) } }
  for header in [
    "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 2), }     \n",
    "{\"shape\":(1,2,),\"descr\":\"<f4\",\"fortran_order\":False}",
  ] {
    for version in [UInt8(1), 2, 3] {
      let read = try Npy.readRows(folder.put(npy(version: version, header, body)), argument: "--input")
      #expect(read.array == [1, -2])
    }
  }
}

@Test func integersOfBothWidthsAreReadAndMustFit32Bits() throws {
  let folder = try TemporaryFolder()
  func file(_ type: String, _ values: [some FixedWidthInteger]) throws -> String {
    let body = values.flatMap { value in withUnsafeBytes(of: value.littleEndian) { Array($0) } }
    return try folder.put(
      npy("{'descr': '\(type)', 'fortran_order': False, 'shape': (\(values.count),)}", body), "R.npy")
  }
  #expect(try Npy.readIntegers(file("<i4", [Int32(-1), 7]), argument: "--routing").values == [-1, 7])
  #expect(try Npy.readIntegers(file("<i8", [Int64(-1), 7]), argument: "--routing").values == [-1, 7])
  #expect(throws: CrosspointError.self) { try Npy.readIntegers(file("<i8", [Int64(1) << 31]), argument: "--routing") }
  #expect(throws: CrosspointError.self) { try Npy.readIntegers(file("<u4", [UInt32(1)]), argument: "--routing") }
}

@Test func aFileCutAnywhereOrLongerThanItsShapeIsRefused() throws {
  let folder = try TemporaryFolder()
  let whole = npy("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 2), }", Array(repeating: 0, count: 16))
  for length in 0..<whole.count {
    let path = try folder.put(whole.prefix(length))
    #expect(throws: CrosspointError.self, "cut to \(length) bytes") { _ = try Npy.readRows(path, argument: "--input") }
  }
  let longer = try folder.put(whole + [0])
  #expect(throws: CrosspointError.self) { _ = try Npy.readRows(longer, argument: "--input") }
}

@Test func aFlippedHeaderBitIsRefusedOrHarmless() throws {
  let folder = try TemporaryFolder()
  let header = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 2), }"
  let whole = npy(header, Array(repeating: 0, count: 16))
  for bit in 0..<8 * (10 + header.utf8.count) {
    var damaged = whole
    damaged[bit / 8] ^= 1 << (bit % 8)
    let path = try folder.put(damaged)
    // A space may become another space and a quote another quote: still four floats, never another size.
    if let read = try? Npy.readRows(path, argument: "--input") { #expect(read.rows * read.hidden == 4, "bit \(bit)") }
  }
}

@Test func whatIsNoRowsOfFloat32IsRefusedBeforeMemoryIsTaken() throws {
  let folder = try TemporaryFolder()
  func refused(_ header: String) throws -> Bool {
    let path = try folder.put(npy(header))
    do {
      _ = try Npy.readRows(path, argument: "--input")
      return false
    } catch {
      return "\(error)".hasPrefix("file: --input: \(path) ")
    }
  }
  for (type, order, shape) in [
    ("<f8", "False", "(0, 4)"), (">f4", "False", "(0, 4)"), ("<f4", "True", "(0, 4)"), ("<f4", "False", "(0,)"),
    ("<f4", "False", "(4, 0)"), ("<f4", "False", "()"), ("<f4", "False", "(1000000000000, 1000000000000)"),
    ("<f4", "False", "(100000000, 100000)"), ("<f4", "False", "(-1, 4)"), ("<f4", "False", "(99999999999999999999, 4)"),
  ] {
    #expect(
      try refused("{'descr': '\(type)', 'fortran_order': \(order), 'shape': \(shape)}"), "\(type) \(order) \(shape)")
  }
  #expect(try refused("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (0, 4)}"))
  #expect(try refused("{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (0, 4)}"))
  #expect(try refused("{'descr': '<f4', 'fortran_order': False, 'shape': (0, 4)} rest"))
  #expect(try refused("{'descr': '<f4'}"))
  #expect(try refused(""))
}
