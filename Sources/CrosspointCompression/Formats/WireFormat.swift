import CrosspointCore
import CrosspointTokens

/// How a row becomes bytes on the wire.
///
/// Its text is that of `--wire`. docs/wire-format.md lists all formats, what each costs and what it gives.
public struct WireFormat: Hashable, Sendable, CustomStringConvertible {
  /// Every format there is. To add one: its file, a line here, and its golden frames.
  static let families: [any RowFormat.Type] = [
    FP32Format.self, BF16Format.self, FP16Format.self, FP8Format.self, UniformFormat.self, RotatedFormat.self,
    ZipCacheFormat.self, EntropyFormat.self, WeightedFormat.self, MixedFormat.self,
  ]

  /// What knows how rows of it are coded.
  let coding: any RowFormat
  /// The number that stands for it in a frame. What entropy-coded rows take is the encoder's affair and no part of it.
  package let code: UInt16
  /// Bits per element; of entropy-coded rows those that they may take, everything counted, and 0 if it is not said.
  package let rate: Double
  /// The largest magnitude that it carries: rows within come back finite, with the error that docs/wire-format.md states.
  /// Of lossy formats but fp16 it is 2¹¹⁴, so that no sum over a row or a group can overflow.
  package let bound: Float

  init(_ format: any RowFormat) {
    coding = format
    (code, rate, bound) = (format.code, format.rate, format.bound)
  }

  /// The next whole number of bits per element from ``rate`` up.
  package var bits: Int { Int(rate.rounded(.up)) }

  /// Every format there is; where a family has too many members, some.
  package static let all: [WireFormat] = families.flatMap { family in family.members.map { WireFormat($0) } }

  /// The format that carries rows of a type as they lie.
  package static func lossless(of rows: RowType) -> WireFormat { rows == .fp32 ? .fp32 : .bf16 }

  /// Its ``bound`` for rows of a type: none where it carries them as they lie.
  package func bound(of rows: RowType) -> Float {
    self == .lossless(of: rows) ? .greatestFiniteMagnitude : bound
  }

  /// Whether decoding gives back every bit.
  package var isLossless: Bool { self == .fp32 }

  public static func == (a: WireFormat, b: WireFormat) -> Bool { a.code == b.code && a.rate == b.rate }

  public func hash(into hasher: inout Hasher) {
    hasher.combine(code)
    hasher.combine(rate)
  }

  /// `nil` for a number that stands for no format.
  package init?(code: UInt16) {
    for family in Self.families {
      guard let format = family.coded(code) else { continue }
      self.init(format)
      return
    }
    return nil
  }
}

/// Its text.
extension WireFormat: Codable {
  public var description: String { coding.text }

  /// `nil` for a text that names no format.
  package init?(_ description: String) {
    for family in Self.families {
      guard let format = family.named(description) else { continue }
      self.init(format)
      return
    }
    return nil
  }

  /// The texts of all formats.
  package static let usage = families.map { $0.usage }.joined(separator: ", ")

  /// The format with this text.
  /// - Throws: `invalidArgument` for a text that names none, with those that come near.
  public init(named text: String) throws(CrosspointError) {
    guard let format = WireFormat(text) else {
      throw CrosspointError(
        .invalidArgument, operation: "WireFormat", argument: "format", "'\(text)' is no wire format: \(Self.near(text))"
      )
    }
    self = format
  }

  /// What somebody may have meant: the family that begins alike, or any.
  private static func near(_ text: String) -> String {
    families.first { $0.usage.hasPrefix(text.prefix(3)) && text.count > 2 }.map { "\($0.usage)?" } ?? "one of \(usage)"
  }

  public init(from decoder: any Decoder) throws {
    self = try WireFormat(named: decoder.singleValueContainer().decode(String.self))
  }

  public func encode(to encoder: any Encoder) throws {
    var container = encoder.singleValueContainer()
    try container.encode(description)
  }
}

/// Sizes of the parts of a body; all follow from the format, the hidden size and the frame's row counts.
extension WireFormat {
  /// Bytes of the key from which the signs of a frame's rows follow, or their noise.
  static let signKeyBytes = 8
  /// Bytes of the fingerprint of a memory.
  static let fingerprintBytes = 8

  static func packedBytes(_ n: Int, bits: Int) -> Int { bits * ((n + 7) / 8) }

  /// Bytes of a group's mean row.
  package func meanBytes(hidden: Int) -> Int { coding.rotates ? 2 * hidden : 0 }

  /// Whether the size of a group's rows follows from their number alone.
  var hasFixedRows: Bool { coding.groupBytes(rows: 0, hidden: 1) != nil }

  /// Upper bound of the bytes of a body.
  func maximumBodyBytes(rows: Int, groups: Int, hidden: Int) -> Int {
    let used = min(rows, groups)
    return coding.maximumBytes(rows: rows, groups: used, hidden: hidden) + used * meanBytes(hidden: hidden)
      + (coding.rotates || coding.dithers ? Self.signKeyBytes : 0) + (coding.remembers ? Self.fingerprintBytes : 0)
  }

  /// Whether it makes use of what both ends remember of rows.
  package var remembers: Bool { coding.remembers }

  /// Whether it matters to the encoder which rows are important.
  package var weighsRows: Bool { coding.weighsRows }
}
