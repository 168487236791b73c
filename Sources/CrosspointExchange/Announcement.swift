import CrosspointCompression
import CrosspointCore

/// What a rank tells another before it sends a frame: step, size, rows per expert, the frame's header, a policy's note.
///
/// A fixed-size record, little-endian words: magic · operation · sequence (two words) · body bytes (two words) · groups ·
/// checksum · bytes of metadata (two words) and their hash · rows of each group · header of the frame, zeros where none
/// is sent · floats of a note, if a policy decides.
/// Everything a receiver allocates follows from it, so it is checked before use.
struct Announcement {
  static let magic: UInt32 = 0x5850_4132  // "XPA2"
  static let fixedWords = 11

  /// Words of a record for at most `groups` groups and a frame header of at most `headerBytes`.
  static func words(groups: Int, headerBytes: Int) -> Int { fixedWords + groups + (headerBytes + 3) / 4 }

  let words: UnsafeMutableBufferPointer<UInt32>
  /// Groups that the record has space for; the frame's header lies behind them.
  let capacity: Int
  /// Floats of the note at its end.
  let noteWords: Int

  /// Fills the record; the frame's header is there already.
  func write(
    kind: TransferKind, sequence: UInt64, bodyBytes: Int, metadata: UnsafeRawBufferPointer, groups: [RowSource]
  ) {
    words[0] = Self.magic
    words[1] = UInt32(kind.rawValue)
    words[2] = UInt32(truncatingIfNeeded: sequence)
    words[3] = UInt32(truncatingIfNeeded: sequence >> 32)
    words[4] = UInt32(truncatingIfNeeded: bodyBytes)
    words[5] = UInt32(truncatingIfNeeded: bodyBytes >> 32)
    words[6] = UInt32(groups.count)
    words[8] = UInt32(truncatingIfNeeded: metadata.count)
    words[9] = UInt32(truncatingIfNeeded: metadata.count >> 32)
    words[10] = Self.hash(metadata)
    for group in 0..<capacity { words[Self.fixedWords + group] = group < groups.count ? UInt32(groups[group].rows) : 0 }
    words[7] = checksum
  }

  var kindCode: Int { Int(words[1]) }
  var sequence: UInt64 { UInt64(words[2]) | UInt64(words[3]) << 32 }
  var bodyBytes: Int { Int(words[4]) | Int(words[5]) << 32 }
  var groups: Int { Int(words[6]) }
  /// Bytes of metadata, and what their ``hash(_:)`` must be.
  var metadataBytes: Int { Int(words[8]) | Int(words[9]) << 32 }
  var metadataHash: UInt32 { words[10] }
  func rows(_ group: Int) -> Int { Int(words[Self.fixedWords + group]) }
  var rows: Int { (0..<groups).reduce(0) { $0 + rows($1) } }
  /// Space for the frame's header.
  var header: UnsafeMutableRawBufferPointer {
    UnsafeMutableRawBufferPointer(
      UnsafeMutableBufferPointer(rebasing: words[(Self.fixedWords + capacity)..<(words.count - noteWords)]))
  }
  var note: UnsafeMutableBufferPointer<Float> {
    let start = UnsafeMutableRawPointer(words.baseAddress! + words.count - noteWords)
    return UnsafeMutableBufferPointer(start: start.assumingMemoryBound(to: Float.self), count: noteWords)
  }

  /// Whether the record is one of ours and arrived as it was written.
  var isIntact: Bool { words[0] == Self.magic && words[7] == checksum && groups <= capacity }

  /// FNV-1a over all words but the checksum's own.
  private var checksum: UInt32 {
    var hash = Self.start
    for (index, word) in words.enumerated() where index != 7 { Self.mix(word, into: &hash) }
    return hash
  }

  /// FNV-1a over the words of some bytes, the last filled up with zeros, and their number.
  static func hash(_ bytes: UnsafeRawBufferPointer) -> UInt32 {
    var hash = start
    let whole = bytes.count & ~3
    for offset in stride(from: 0, to: whole, by: 4) {
      mix(bytes.loadUnaligned(fromByteOffset: offset, as: UInt32.self), into: &hash)
    }
    if whole < bytes.count { mix(bytes[whole...].reversed().reduce(0) { $0 << 8 | UInt32($1) }, into: &hash) }
    mix(UInt32(truncatingIfNeeded: bytes.count), into: &hash)
    return hash
  }

  private static let start: UInt32 = 0x811C_9DC5
  private static func mix(_ word: UInt32, into hash: inout UInt32) { hash = (hash ^ word) &* 0x0100_0193 }
}
