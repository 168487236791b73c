import CrosspointCore

/// How a row becomes bytes on the wire.
///
/// Its text is that of `--wire`: `fp32`, `bf16`, `fp16`, `fp8`, `int8`, `int4`, `rotated:1` … `rotated:8`,
/// `zipcache:8`, `zipcache:4`, `entropy:0.1` … `entropy:10`, `mixed:LOW,HIGH` and `mixed:LOW,HIGH,FRACTION`.
/// What each costs and gives is in docs/wire-format.md.
public struct WireFormat: Hashable, Sendable, LosslessStringConvertible {
  enum Kind: UInt8, Sendable {
    case fp32 = 1
    case bf16, fp16, fp8, int8, int4, rotated, entropy
    case zipCache, mixed
  }

  let kind: Kind
  /// Bits per element, scales and means not counted; of entropy-coded and mixed rows the next whole number of bits.
  public let bits: Int
  /// Bits per element that entropy-coded rows may take, everything counted; 0 if it is not said. Of mixed rows their mean.
  /// Else equal to ``bits``.
  public let rate: Double
  /// How many bits which rows have, if not all have the same.
  let mixture: Mixture?

  private init(_ kind: Kind, bits: Int, rate: Double? = nil, mixture: Mixture? = nil) {
    self.kind = kind
    self.bits = bits
    self.rate = rate ?? Double(bits)
    self.mixture = mixture
  }

  private init(_ mixture: Mixture) {
    self.init(.mixed, bits: Int(mixture.rate.rounded(.up)), rate: mixture.rate, mixture: mixture)
  }

  /// The floats themselves: bitwise.
  public static let fp32 = WireFormat(.fp32, bits: 32)
  /// bfloat16, round to nearest even.
  public static let bf16 = WireFormat(.bf16, bits: 16)
  /// IEEE half, round to nearest even; magnitudes up to 65504.
  public static let fp16 = WireFormat(.fp16, bits: 16)
  /// E4M3 with one scale for every 128 elements.
  public static let fp8 = WireFormat(.fp8, bits: 8)
  /// 256 even steps between a row's smallest and largest element.
  public static let int8 = WireFormat(.int8, bits: 8)
  /// 16 even steps between a row's smallest and largest element.
  public static let int4 = WireFormat(.int4, bits: 4)
  /// Centred, pseudo-rotated rows in `bits` (1 to 8) bits per element by the Lloyd-Max quantiser of the unit Gaussian.
  /// - Throws: `invalidArgument` for other bits.
  public static func rotated(bits: Int) throws(CrosspointError) -> WireFormat {
    try named("rotated:\(bits)", "1 to 8 bits")
  }

  /// Channel-separable tokenwise: elements over √(largest magnitude of their channel in the group), then `bits` (8 or 4)
  /// bits of even steps between a row's smallest and largest. Source: ZipCache (arXiv 2405.14256), section 4.2.
  /// - Throws: `invalidArgument` for other bits.
  public static func zipCache(bits: Int) throws(CrosspointError) -> WireFormat {
    try named("zipcache:\(bits)", "4 or 8 bits")
  }

  /// What ``entropy(bits:)`` takes.
  public static let entropyRates = 0.1...10.0
  /// Centred rows of one step size, each element coded by its entropy, with the step that makes a frame take at most
  /// `bits` (0.1 to 10, fractions too) per element.
  /// - Throws: `invalidArgument` for other bits.
  public static func entropy(bits: Double) throws(CrosspointError) -> WireFormat {
    try named("entropy:\(bits)", "0.1 to 10 bits")
  }

  /// The same for bits that are known to be among ``entropyRates``.
  package init(entropyRate rate: Double) {
    precondition(Self.entropyRates.contains(rate))
    self.init(.entropy, bits: Int(rate.rounded(.up)), rate: rate)
  }

  /// Rows as ``rotated(bits:)``: in each group a `fraction` (1/2, 1/4, 1/8 or 1/16) of them, those of most importance, in
  /// `high` bits per element, the others in `low` (`1 ≤ low < high ≤ 8`). In dispatch importance is the router's weight,
  /// of a cluster that of all its members; elsewhere, and among equals, the energy of a row without its group's mean.
  /// - Throws: `invalidArgument` for other bits and fractions.
  public static func mixed(low: Int, high: Int, fraction: Double = 0.25) throws(CrosspointError) -> WireFormat {
    try named("mixed:\(low),\(high),\(fraction)", "1 to 8 bits, fewer first; 0.5, 0.25, 0.125 or 0.0625")
  }

  /// What a text names: it is the one place that knows what there is.
  private static func named(_ text: String, _ allowed: String) throws(CrosspointError) -> WireFormat {
    guard let format = WireFormat(text) else {
      throw CrosspointError(.invalidArgument, operation: "WireFormat", argument: "bits", "\(text); \(allowed)")
    }
    return format
  }

  /// Every format there is; of those by entropy one for each whole number of bits up to 4, of mixed ones some.
  public static let all: [WireFormat] =
    fixed
    + ["entropy:1", "entropy:2", "entropy:3", "entropy:4", "mixed:1,8,0.0625", "mixed:2,4", "mixed:3,6,0.5"].map {
      WireFormat($0)!
    }

  /// Those whose rows all take the same number of bytes.
  static let fixed: [WireFormat] =
    [.fp32, .bf16, .fp16, .fp8, .int8, .int4] + (1...8).map { WireFormat(.rotated, bits: $0) }
    + [8, 4].map { WireFormat(.zipCache, bits: $0) }

  /// The largest magnitude that it carries: rows within come back finite, with the error that docs/wire-format.md states.
  /// Of lossy formats but fp16 it is 2¹¹⁴, so that no sum over a row or a group can overflow.
  public var bound: Float {
    switch kind {
    case .fp32: .greatestFiniteMagnitude
    case .fp16: 65504
    default: 0x1p114
    }
  }

  /// Whether decoding gives back every bit.
  public var isLossless: Bool { self == .fp32 }

  public var description: String {
    switch kind {
    case .rotated: "rotated:\(bits)"
    case .zipCache: "zipcache:\(bits)"
    case .entropy: "entropy:" + (rate == rate.rounded() ? "\(Int(rate))" : "\(rate)")
    case .mixed: "mixed:\(mixture!.description)"
    default: "\(kind)"
    }
  }

  /// `nil` for a text that names no format.
  public init?(_ description: String) {
    if description.hasPrefix("entropy:") {
      guard let rate = Double(description.dropFirst(8)), Self.entropyRates.contains(rate) else { return nil }
      self.init(entropyRate: rate)
      return
    }
    if description.hasPrefix("mixed:") {
      guard let mixture = Mixture(description.dropFirst(6)) else { return nil }
      self.init(mixture)
      return
    }
    guard let format = Self.fixed.first(where: { $0.description == description }) else { return nil }
    self = format
  }

  /// The number that stands for it in a frame: kind in the low byte, bits in the high one (0 for entropy-coded rows: how
  /// many they take is the encoder's affair; of mixed rows both numbers and the fraction).
  public var code: UInt16 {
    UInt16(kind.rawValue) | (mixture?.code ?? UInt16(kind == .entropy ? 0 : bits)) << 8
  }

  /// `nil` for a number that stands for no format.
  public init?(code: UInt16) {
    if code == UInt16(Kind.entropy.rawValue) {
      self.init(.entropy, bits: 0)
      return
    }
    if code & 0xFF == UInt16(Kind.mixed.rawValue) {
      guard let mixture = Mixture(code: code >> 8) else { return nil }
      self.init(mixture)
      return
    }
    guard let format = Self.fixed.first(where: { $0.code == code }) else { return nil }
    self = format
  }
}

/// Encoded as its text.
extension WireFormat: Codable {
  public init(from decoder: any Decoder) throws {
    let text = try decoder.singleValueContainer().decode(String.self)
    guard let format = WireFormat(text) else {
      throw DecodingError.dataCorrupted(
        .init(codingPath: decoder.codingPath, debugDescription: "\(text) names no wire format"))
    }
    self = format
  }

  public func encode(to encoder: any Encoder) throws {
    var container = encoder.singleValueContainer()
    try container.encode(description)
  }
}
