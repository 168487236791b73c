import CrosspointCore

/// A format whose frame is one body (``EntropyBody``), written by ``EntropyEncoder`` with the step that takes ``rate`` bits per
/// element, everything counted, and read by ``EntropyDecoder``. The rate of a frame that was read is not known: 0.
protocol EntropyCodedFormat: RowFormat {
  static var name: String { get }
  static var number: UInt16 { get }

  init(rate: Double)
}

extension EntropyCodedFormat {
  static var usage: String { "\(name):BITS (0.1 to 10, fractions too)" }

  static func named(_ text: String) -> Self? {
    guard text.hasPrefix("\(name):"), let rate = Double(text.dropFirst(name.count + 1)),
      WireFormat.entropyRates.contains(rate)
    else { return nil }
    return Self(rate: rate)
  }

  static func coded(_ code: UInt16) -> Self? { code == number ? Self(rate: 0) : nil }

  var text: String { "\(Self.name):" + (rate == rate.rounded() ? "\(Int(rate))" : "\(rate)") }
  var code: UInt16 { Self.number }
  var centres: Bool { true }
  var dithers: Bool { true }
  var remembers: Bool { true }

  func groupBytes(rows: Int, hidden: Int) -> Int? { nil }
  func maximumBytes(rows: Int, groups: Int, hidden: Int) -> Int {
    EntropyBody.maximumBytes(rows: rows, groups: groups, hidden: hidden, weighted: weighsRows)
  }

  func encode(_ groups: [RowSource], to body: inout BodyWriter) throws(CrosspointError) {
    try EntropyEncoder.encode(groups, rate: rate, weighted: weighsRows, to: &body)
  }

  func decode(_ groups: [RowTarget], from body: inout BodyReader) throws(CrosspointError) {
    try EntropyDecoder(codec: body.codec, memory: body.memory, dither: body.signs, weighted: weighsRows).decode(
      body.takeAll(), of: body.header, into: groups)
  }
}

/// Rows of one step size, each element coded by its entropy.
struct EntropyFormat: EntropyCodedFormat {
  static let name = "entropy"
  static let number: UInt16 = 11
  static let members = (1...4).map { EntropyFormat(rate: Double($0)) }
  let rate: Double
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
