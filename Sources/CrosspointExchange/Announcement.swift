import CrosspointCompression
import CrosspointCore
import CrosspointFabric

/// What a rank tells another at the start of a transfer: step, verdict, what follows, rows per group, the frame's header, a
/// policy's note.
///
/// A record of fixed size that travels sealed (``SealedRecord``), little-endian words: magic · operation, verdict and flags, a
/// byte each · sequence (two words) · number of the dispatch (two words) · groups · hash of the metadata · body bytes (two
/// words) · bytes of metadata (two words) · seconds that the sender waited in the transfer before · rows of each group ·
/// header of the frame, zeros where none is sent · floats of a note, if a policy decides. A small body lies behind the
/// record, and behind it the metadata.
/// Everything a receiver allocates follows from it, so it is checked before use.
struct Announcement {
  static let magic: UInt32 = 0x5850_4134  // "XPA4"
  static let fixedWords = 13

  /// How rows of the sender travel. The first and the last are said to each rank of what it gets, the others to all of the whole transfer.
  struct Flags: OptionSet {
    let rawValue: UInt32
    /// Body and metadata lie behind the record.
    static let carriesBody = Flags(rawValue: 1)
    /// A body, or metadata, comes in a message of its own.
    static let movesBodies = Flags(rawValue: 2)
    /// Rows are to be written into the memory of a rank of the same node.
    static let writesRows = Flags(rawValue: 4)
    /// Whoever writes rows here knows where.
    static let hasPlaces = Flags(rawValue: 8)
    /// Rows, frames or metadata are read or written in memory that ranks of a node share.
    static let sharesMemory = Flags(rawValue: 16)
    /// Experts work in waves here.
    static let inWaves = Flags(rawValue: 32)
    /// Metadata lies behind the record, though the body comes in a message of its own.
    static let carriesMetadata = Flags(rawValue: 64)
  }

  /// Words of a record for at most `groups` groups and a frame header of at most `headerBytes`.
  static func words(groups: Int, headerBytes: Int) -> Int { fixedWords + groups + (headerBytes + 3) / 4 }

  let words: UnsafeMutableBufferPointer<UInt32>
  /// Groups that the record has space for; the frame's header lies behind them.
  let capacity: Int
  /// Floats of the note at its end.
  let noteWords: Int

  /// Fills the record; the frame's header is there already.
  func write(
    kind: TransferKind, verdict: Verdict, flags: Flags, sequence: UInt64, dispatch: UInt64, waitedSeconds: Float,
    bodyBytes: Int, metadata: UnsafeRawBufferPointer, groups: [RowSource]
  ) {
    words[0] = Self.magic
    words[1] = UInt32(kind.rawValue) | UInt32(verdict.rawValue) << 8 | flags.rawValue << 16
    self[2] = sequence
    self[4] = dispatch
    words[6] = UInt32(groups.count)
    words[7] = Self.hash(metadata)
    self[8] = UInt64(bodyBytes)
    self[10] = UInt64(metadata.count)
    words[12] = waitedSeconds.bitPattern
    for group in 0..<capacity { words[Self.fixedWords + group] = group < groups.count ? UInt32(groups[group].rows) : 0 }
  }

  var kindCode: Int { Int(words[1] & 0xFF) }
  var verdict: Verdict { Verdict(rawValue: UInt64(words[1] >> 8 & 0xFF)) ?? .failed }
  var flags: Flags { Flags(rawValue: words[1] >> 16) }
  var sequence: UInt64 { self[2] }
  /// The sequence number of the dispatch that the rows belong to.
  var dispatch: UInt64 { self[4] }
  var groups: Int { Int(words[6]) }
  var bodyBytes: Int { Int(truncatingIfNeeded: self[8]) }
  /// Bytes of metadata, and what their ``hash(_:)`` must be.
  var metadataBytes: Int { Int(truncatingIfNeeded: self[10]) }
  var metadataHash: UInt32 { words[7] }
  /// How many of them lie behind the record.
  var bytesBehind: (body: Int, metadata: Int) {
    flags.contains(.carriesBody)
      ? (bodyBytes, metadataBytes) : (0, flags.contains(.carriesMetadata) ? metadataBytes : 0)
  }
  /// How long the sender waited for the others in the transfer before.
  var waitedSeconds: Float { Float(bitPattern: words[12]) }
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

  /// Whether the record is one of this version's.
  var isReadable: Bool { words[0] == Self.magic && groups <= capacity }

  /// A number of two words, the low one first.
  private subscript(word: Int) -> UInt64 {
    get { UInt64(words[word]) | UInt64(words[word + 1]) << 32 }
    nonmutating set {
      words[word] = UInt32(truncatingIfNeeded: newValue)
      words[word + 1] = UInt32(truncatingIfNeeded: newValue >> 32)
    }
  }

  /// FNV-1a over the words of some bytes, the last filled up with zeros, and their number.
  static func hash(_ bytes: UnsafeRawBufferPointer) -> UInt32 {
    var hash: UInt32 = 0x811C_9DC5
    func mix(_ word: UInt32) { hash = (hash ^ word) &* 0x0100_0193 }
    let whole = bytes.count & ~3
    for offset in stride(from: 0, to: whole, by: 4) {
      mix(bytes.loadUnaligned(fromByteOffset: offset, as: UInt32.self))
    }
    if whole < bytes.count { mix(bytes[whole...].reversed().reduce(0) { $0 << 8 | UInt32($1) }) }
    mix(UInt32(truncatingIfNeeded: bytes.count))
    return hash
  }
}
