import CrosspointCore

/// What a rank tells another before it sends a frame: step, size, and rows per expert.
///
/// A fixed-size record, little-endian words: magic · operation · sequence (two words) · frame bytes (two words) · groups ·
/// checksum · rows of each group. Everything a receiver allocates follows from it, so it is checked before use.
struct Announcement {
  static let magic: UInt32 = 0x5850_4131  // "XPA1"
  static let headerWords = 8

  /// Words of a record for at most `groups` groups.
  static func words(groups: Int) -> Int { headerWords + groups }

  let words: UnsafeMutableBufferPointer<UInt32>

  /// Fills the record.
  func write(kind: LayerStatistics.TransferKind, sequence: UInt64, frameBytes: Int, rows: (Int) -> Int, groups: Int) {
    words.update(repeating: 0)
    words[0] = Self.magic
    words[1] = UInt32(kind.rawValue)
    words[2] = UInt32(truncatingIfNeeded: sequence)
    words[3] = UInt32(truncatingIfNeeded: sequence >> 32)
    words[4] = UInt32(truncatingIfNeeded: frameBytes)
    words[5] = UInt32(truncatingIfNeeded: frameBytes >> 32)
    words[6] = UInt32(groups)
    for group in 0..<groups { words[Self.headerWords + group] = UInt32(rows(group)) }
    words[7] = checksum
  }

  var kindCode: Int { Int(words[1]) }
  var sequence: UInt64 { UInt64(words[2]) | UInt64(words[3]) << 32 }
  var frameBytes: Int { Int(words[4]) | Int(words[5]) << 32 }
  var groups: Int { Int(words[6]) }
  func rows(_ group: Int) -> Int { Int(words[Self.headerWords + group]) }

  /// Whether the record is one of ours and arrived as it was written.
  var isIntact: Bool { words[0] == Self.magic && words[7] == checksum && groups + Self.headerWords <= words.count }

  /// FNV-1a over all words but the checksum's own.
  private var checksum: UInt32 {
    var hash: UInt32 = 0x811C_9DC5
    for (index, word) in words.enumerated() where index != 7 {
      hash = (hash ^ word) &* 0x0100_0193
    }
    return hash
  }
}
