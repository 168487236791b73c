import Synchronization

/// Where one rank leaves another of its node what it sends it in one exchange: on the first pages of the receiver's file.
///
/// Small blocks lie in it, larger ones of the sender's heap are named by their address, others come in messages. A pair of
/// ranks has two for each direction, used by turns. It is filled once what was left in it before has been taken: always,
/// where exchanges are finished before others begin, since a rank that begins one has heard from all in the last.
struct Mailbox: @unchecked Sendable {
  /// How a block comes.
  enum Place: Equatable {
    case here
    case address(UInt64)
    case message

    fileprivate var word: UInt64 {
      switch self {
      case .here: 0
      case .address(let address): address
      case .message: .max
      }
    }

    fileprivate init(word: UInt64) { self = word == 0 ? .here : word == .max ? .message : .address(word) }
  }

  /// Bytes for blocks, and for an entry of 16 bytes for each.
  private let capacity: Int
  private let base: UnsafeMutableRawPointer

  /// - Parameters:
  ///   - node: ranks of the node.
  ///   - sender: one of them, counted within the node.
  ///   - exchange: an exchange, of which all even ones share a mailbox, and all odd ones.
  ///   - control: the first pages of the receiver's file.
  init(of sender: Int, exchange: Int, node: Int, in control: UnsafeMutableRawPointer) {
    capacity = Self.capacity(node: node)
    base = control + SegmentTable.bytes + (2 * sender + exchange % 2) * Self.stride(node: node)
  }

  /// Bytes of all mailboxes of a rank.
  static func bytes(node: Int) -> Int { 2 * node * stride(node: node) }

  /// Blocks up to so many bytes are copied into a mailbox rather than named. Measured: naming is faster from 2 KiB where
  /// ranks have a core each, from 6 KiB where they share it.
  private static let copied = 4096

  /// A mebibyte for all senders, and 8 KiB for one at most.
  private static func capacity(node: Int) -> Int { max(512, min(8192, (1 << 20) / node & ~63)) }

  /// One line of the cache that the receiver writes, then the sender's: number of the exchange, number of blocks, the rest.
  private static func stride(node: Int) -> Int { round(64 + 16 + capacity(node: node), to: 64) }

  private var taken: UnsafeMutablePointer<Atomic<UInt64>> { base.assumingMemoryBound(to: Atomic<UInt64>.self) }
  private var filled: UnsafeMutablePointer<Atomic<UInt64>> {
    (base + 64).assumingMemoryBound(to: Atomic<UInt64>.self)
  }
  private var content: UnsafeMutableRawPointer { base + 80 }

  // The sender's side.

  /// Leaves the blocks of an exchange. Whether any must be taken out of this rank's memory, and stay valid until then.
  func fill(
    _ blocks: ArraySlice<UnsafeRawBufferPointer>, exchange: Int, address: (UnsafeRawPointer) -> UInt64?
  ) -> Bool {
    var isTaken = false
    (base + 72).storeBytes(of: UInt64(blocks.count), as: UInt64.self)
    var used = 16 * blocks.count
    if used <= capacity {
      for (index, block) in blocks.enumerated() {
        var place = Place.message
        let fits = block.count <= capacity - used
        if !fits || block.count > Self.copied, let bytes = block.baseAddress, let address = address(bytes) {
          place = .address(address)
          isTaken = true
        } else if fits {
          if let bytes = block.baseAddress { (content + used).copyMemory(from: bytes, byteCount: block.count) }
          used += round(block.count, to: 8)
          place = .here
        }
        content.storeBytes(of: UInt64(block.count), toByteOffset: 16 * index, as: UInt64.self)
        content.storeBytes(of: place.word, toByteOffset: 16 * index + 8, as: UInt64.self)
      }
    }
    filled.pointee.store(UInt64(exchange), ordering: .releasing)
    return isTaken
  }

  /// Whether the receiver has taken what was left last.
  var isFree: Bool { taken.pointee.load(ordering: .acquiring) == filled.pointee.load(ordering: .relaxed) }

  /// Whether the receiver has taken all that it was left in an exchange.
  func isTaken(_ exchange: Int) -> Bool { taken.pointee.load(ordering: .acquiring) >= UInt64(exchange) }

  // The receiver's side.

  /// Whether the sender has left what it sends in an exchange.
  func isFilled(_ exchange: Int) -> Bool { filled.pointee.load(ordering: .acquiring) == UInt64(exchange) }

  func take(_ exchange: Int) { taken.pointee.store(UInt64(exchange), ordering: .releasing) }

  /// Blocks of the exchange.
  var count: Int { Int(truncatingIfNeeded: (base + 72).load(as: UInt64.self)) }

  /// How a block comes: more blocks than there is room for entries are all messages.
  func place(_ index: Int) -> Place {
    guard 16 * count <= capacity else { return .message }
    return Place(word: content.load(fromByteOffset: 16 * index + 8, as: UInt64.self))
  }

  /// The bytes of a block, for those that are no messages.
  func length(_ index: Int) -> Int {
    Int(truncatingIfNeeded: content.load(fromByteOffset: 16 * index, as: UInt64.self))
  }

  /// The bytes of a block behind those that lie `here` before it.
  func bytes(at offset: Int, _ count: Int) -> UnsafeRawBufferPointer? {
    let start = 16 * self.count + offset
    return start + count <= capacity ? UnsafeRawBufferPointer(start: content + start, count: count) : nil
  }
}
