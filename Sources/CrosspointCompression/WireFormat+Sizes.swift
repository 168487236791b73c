/// Sizes of the parts of a body; all follow from the format, the hidden size and the frame's row counts.
extension WireFormat {
  /// Elements that share one fp8 scale.
  static let fp8Block = 128

  /// Bytes of the key from which the signs of a frame's rows follow.
  static let signKeyBytes = 8

  /// Bytes of `n` codes packed by the bit kernels.
  static func packedBytes(_ n: Int, bits: Int) -> Int { bits * ((n + 7) / 8) }

  /// Bytes of a rotated row: its scale and its codes.
  static func rotatedRowBytes(_ hidden: Int, bits: Int) -> Int { 2 + packedBytes(hidden, bits: bits) }

  /// Bytes of one row of the formats whose rows all take the same; of the others, 0.
  func rowBytes(hidden: Int) -> Int {
    switch kind {
    case .fp32: 4 * hidden
    case .bf16, .fp16: 2 * hidden
    case .fp8: hidden + 2 * ((hidden + Self.fp8Block - 1) / Self.fp8Block)
    case .int8, .int4, .zipCache: 4 + Self.packedBytes(hidden, bits: bits)
    case .rotated: Self.rotatedRowBytes(hidden, bits: bits)
    case .entropy, .mixed: 0
    }
  }

  /// Bytes of the rows of a group, where they follow from their number.
  func groupBytes(rows: Int, hidden: Int) -> Int {
    mixture?.groupBytes(rows: rows, hidden: hidden) ?? rows * rowBytes(hidden: hidden)
  }

  /// Whether the size of a group's rows follows from their number alone.
  var hasFixedRows: Bool { kind != .entropy }

  /// Whether rows are rotated, and may have signs of their own.
  var rotates: Bool { kind == .rotated || kind == .mixed }

  /// Whether groups may be sent without their mean row.
  var centres: Bool { rotates || kind == .entropy }

  /// Whether it matters to the encoder which rows are important.
  package var weighsRows: Bool { mixture != nil }

  /// How many of a group's rows are coded with more bits than the others; `nil` where all are coded alike.
  package func highRows(of rows: Int) -> Int? { mixture?.highRows(of: rows) }

  /// Upper bound of the bytes of a body.
  func maximumBodyBytes(rows: Int, groups: Int, hidden: Int) -> Int {
    guard hasFixedRows else { return EntropyBody.maximumBytes(rows: rows, groups: groups, hidden: hidden) }
    let used = min(rows, groups)
    return (mixture?.maximumBytes(rows: rows, groups: used, hidden: hidden) ?? rows * rowBytes(hidden: hidden))
      + used * meanBytes(hidden: hidden) + (rotates ? Self.signKeyBytes : 0)
  }

  /// Bytes of a group's mean row, or of its channels' scales.
  package func meanBytes(hidden: Int) -> Int { rotates || kind == .zipCache ? 2 * hidden : 0 }
}
