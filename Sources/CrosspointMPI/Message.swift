/// A message that MPI is working on.
struct Message {
  enum Kind {
    case send
    /// Part of the block that the peer sends here.
    case block
    /// A message of the wrong length, into memory of its own: the sender is not held up, and no block is overrun.
    case stray(UnsafeMutableRawBufferPointer)
  }

  let peer: Int
  let kind: Kind
}

/// How much of its blocks a rank has sent, and what it has yet to get of this rank's.
struct Source {
  /// Whether it is known which of the blocks come in messages.
  var isKnown = true
  /// Whether its mailbox is yet to be filled.
  var isUnfilled = false
  /// Messages that make up those.
  var chunks = 0
  /// Messages that have come.
  var started = 0
  /// Whether the rest of a block of the wrong length is under way.
  var discardsBlock = false
  /// Messages whose bytes are all here; −1 where other blocks are not as long as expected.
  var done = 0
  /// Whether it has been told of that all is here.
  var isReported = false
  /// Whether it has yet to take blocks out of this rank's memory.
  var takes = false
  /// Messages to it that have not been started, and the part of its blocks that comes next.
  var unsent = 0
  var nextBlock = 0
  var nextChunk = 0
  /// Messages to it that are under way, and when one was last started or over.
  var sending = 0
  var sent = ContinuousClock.now
  /// Whether it takes none of them, and others do not wait for it.
  var isPassedOver = false

  var isComplete: Bool { isKnown && done == chunks }
  /// Messages that have yet to come, as far as is known.
  var left: Int { chunks - started }
}

/// How a block is cut into messages of at most `limit` bytes.
///
/// The last message is always shorter than the limit, empty if need be. So a block that is longer or shorter than its
/// receiver expects shows in the length of some message, wherever it ends. An empty block is an empty message: a rank that
/// expects nothing notices what it is sent, and no message stays behind for a later exchange to find.
struct Chunks {
  let bytes: Int
  let limit: Int

  var count: Int { bytes / limit + 1 }

  func range(_ chunk: Int) -> Range<Int> { chunk * limit..<min(bytes, (chunk + 1) * limit) }
}
