import CrosspointCore
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
    for code in (1...12).map({ CrosspointError.Code(rawValue: $0) }) + [.init(rawValue: .max)] {
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

  @Test func theDescriptionIsOneLineWithRankStepAndArgument() {
    let error = CrosspointError(.nonFinite, operation: "dispatch", argument: "tokens", "row 17 holds NaN")
    #expect(error.description == "dispatch: tokens: row 17 holds NaN")
    #expect(error.on(rank: 2).description == "rank 2: dispatch: tokens: row 17 holds NaN")
  }
}
