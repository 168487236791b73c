import CrosspointCore

/// Rows of one step size, each element coded by its entropy: a frame is one body (``EntropyBody``), written by
/// ``EntropyEncoder`` with the step that takes ``rate`` bits per element, and read by ``EntropyDecoder``.
struct EntropyFormat: RowFormat {
  static let usage = "entropy:BITS (0.1 to 10, fractions too)"
  static let members = (1...4).map { EntropyFormat(rate: Double($0)) }
  /// Bits per element that a frame may take, everything counted; 0 if it is not said.
  let rate: Double

  static func named(_ text: String) -> EntropyFormat? {
    guard text.hasPrefix("entropy:"), let rate = Double(text.dropFirst(8)), WireFormat.entropyRates.contains(rate)
    else { return nil }
    return EntropyFormat(rate: rate)
  }

  static func coded(_ code: UInt16) -> EntropyFormat? { code == 11 ? EntropyFormat(rate: 0) : nil }

  var text: String { "entropy:" + (rate == rate.rounded() ? "\(Int(rate))" : "\(rate)") }
  var code: UInt16 { 11 }
  var centres: Bool { true }
  var dithers: Bool { true }
  var remembers: Bool { true }

  func groupBytes(rows: Int, hidden: Int) -> Int? { nil }
  func maximumBytes(rows: Int, groups: Int, hidden: Int) -> Int {
    EntropyBody.maximumBytes(rows: rows, groups: groups, hidden: hidden, weighted: false)
  }

  func encode(_ groups: [RowSource], to body: inout BodyWriter) throws(CrosspointError) {
    try EntropyEncoder.encode(groups, rate: rate, weighted: false, to: &body)
  }

  func decode(_ groups: [RowTarget], from body: inout BodyReader) throws(CrosspointError) {
    try EntropyDecoder(codec: body.codec, memory: body.memory, dither: body.signs, weighted: false).decode(
      body.takeAll(), of: body.header, into: groups)
  }
}

extension WireFormat {
  /// Bits per element that may be asked for.
  package static let entropyRates = 0.1...10.0
  /// What a frame has once, tables above all, counts up to this part of what its rate allows: small frames take more,
  /// rather than that nothing is left for their rows.
  package static let entropyFixedPart = 1.0 / 16

  /// Entropy-coded rows of so many bits per element, which must be among ``entropyRates``.
  package init(entropyRate rate: Double) {
    precondition(Self.entropyRates.contains(rate))
    self.init(EntropyFormat(rate: rate))
  }
}
