import CrosspointCore
import Foundation
import Testing

struct CrosspointErrorTests {
  private func wire(_ error: CrosspointError) -> [UInt8] {
    var bytes = [UInt8](repeating: 0xAA, count: CrosspointError.encodedSize)
    bytes.withUnsafeMutableBytes { error.encode(into: $0) }
    return bytes
  }

  private func decoded(_ bytes: [UInt8]) -> CrosspointError? {
    bytes.withUnsafeBytes { CrosspointError(decoding: $0) }
  }

  @Test(arguments: [nil, 0, 3, 100_000])
  func theWireFormRoundTrips(rank: Int?) {
    let error = CrosspointError(
      .nonFinite, operation: "dispatch", rank: rank, argument: "tokens", "row 17 holds NaN (7 × 8 rows)")
    #expect(decoded(wire(error)) == error)
  }

  @Test func everyCodeAndEmptyTextsRoundTrip() {
    for code in (1...13).map({ CrosspointError.Code(rawValue: $0) }) + [.init(rawValue: .max)] {
      let error = CrosspointError(code, operation: "", argument: "", "")
      #expect(decoded(wire(error)) == error)
    }
  }

  @Test func longTextsAreCutAtACharacter() throws {
    let long = String(repeating: "é👩‍👩‍👧", count: 50)
    let result = try #require(
      decoded(wire(CrosspointError(.file, operation: long, argument: long, long))))
    for text in [result.operation, result.argument, result.message] {
      #expect(!text.isEmpty && long.hasPrefix(text))
    }
  }

  @Test func noBytesAtAllMeanNoFailure() {
    #expect(decoded(Array(repeating: 0, count: CrosspointError.encodedSize)) == nil)
    #expect(decoded([]) == nil)
  }

  @Test func truncatedBytesAreRefused() {
    let bytes = wire(CrosspointError(.file, operation: "load", argument: "path", "missing"))
    for length in 0..<bytes.count { #expect(decoded(Array(bytes[..<length])) == nil) }
  }

  @Test func flippedBitsNeverLeadOutside() {
    let bytes = wire(CrosspointError(.file, operation: "load", argument: "path", "missing"))
    for bit in 0..<bytes.count * 8 {
      var flipped = bytes
      flipped[bit / 8] ^= 1 << (bit % 8)
      _ = decoded(flipped)  // an error or nil, never a trap
    }
  }

  @Test func theDescriptionIsOneLineWithRankStepCodeAndArgument() {
    let error = CrosspointError(.nonFinite, operation: "dispatch", argument: "tokens", "row 17 holds NaN")
    #expect(error.description == "dispatch: nonFinite: tokens: row 17 holds NaN")
    #expect(error.on(rank: 2).description == "rank 2: dispatch: nonFinite: tokens: row 17 holds NaN")
    let file = CrosspointError(.file, operation: "file", argument: "data", "is empty")
    #expect(file.description == "file: data: is empty")
    #expect(CrosspointError(.init(rawValue: 99), operation: "x", argument: "y", "z").description == "x: code 99: y: z")
  }

  /// The numbers are those of the wire: none is left out or given twice.
  @Test func everyCodeHasAName() {
    let names = CrosspointError.Code.names
    #expect(names.map(\.code.rawValue) == Array(1...UInt32(names.count)))
    #expect(Set(names.map(\.name)).count == names.count)
  }

  @Test func everyCodeIsInTheTableOfTheDocuments() throws {
    let file = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
      .appendingPathComponent("../../docs/troubleshooting.md")
    let text = try String(contentsOf: file, encoding: .utf8)
    for (_, name) in CrosspointError.Code.names { #expect(text.contains("| `\(name)` |"), "\(name)") }
  }
}
