import CrosspointCore

/// Entropy-coded rows whose errors count as much as the rows weigh: a row of half the weight has twice the step. Its body is
/// that of ``EntropyFormat``, and says the weights in classes of half an octave.
struct WeightedFormat: RowFormat {
  static let usage = "weighted:BITS (0.1 to 10, fractions too)"
  static let members = [WeightedFormat(rate: 2)]
  /// Bits per element that a frame may take, everything counted; 0 if it is not said.
  let rate: Double

  static func named(_ text: String) -> WeightedFormat? {
    guard text.hasPrefix("weighted:"), let rate = Double(text.dropFirst(9)), WireFormat.entropyRates.contains(rate)
    else { return nil }
    return WeightedFormat(rate: rate)
  }

  static func coded(_ code: UInt16) -> WeightedFormat? { code == 12 ? WeightedFormat(rate: 0) : nil }

  var text: String { "weighted:" + (rate == rate.rounded() ? "\(Int(rate))" : "\(rate)") }
  var code: UInt16 { 12 }
  var centres: Bool { true }
  var dithers: Bool { true }
  var remembers: Bool { true }
  var weighsRows: Bool { true }

  func groupBytes(rows: Int, hidden: Int) -> Int? { nil }
  func maximumBytes(rows: Int, groups: Int, hidden: Int) -> Int {
    EntropyBody.maximumBytes(rows: rows, groups: groups, hidden: hidden, weighted: true)
  }

  func encode(_ groups: [RowSource], to body: inout BodyWriter) throws(CrosspointError) {
    try EntropyEncoder.encode(groups, rate: rate, weighted: true, to: &body)
  }

  func decode(_ groups: [RowTarget], from body: inout BodyReader) throws(CrosspointError) {
    try EntropyDecoder(codec: body.codec, memory: body.memory, dither: body.signs, weighted: true).decode(
      body.takeAll(), of: body.header, into: groups)
  }
}
