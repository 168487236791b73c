import Synchronization

/// Which ranges of its file have memory: written by the file's owner, read by all of its node, on the first pages of the file.
struct SegmentTable: @unchecked Sendable {
  /// More than any heap needs, whose segments grow with it.
  static let capacity = 1023
  static let bytes = 16 * (capacity + 1)

  private let words: UnsafeMutablePointer<Atomic<UInt64>>

  /// - Parameter base: ``bytes`` bytes, zero in a new file.
  init(at base: UnsafeMutableRawPointer) { words = base.assumingMemoryBound(to: Atomic<UInt64>.self) }

  /// Entries in use so far lie before this one. In the first word; entry i lies in words 2i + 2 and 2i + 3.
  private var end: Int {
    get { Int(words[0].load(ordering: .acquiring)) }
    nonmutating set { words[0].store(UInt64(newValue), ordering: .releasing) }
  }

  /// Where an entry's range starts; 0: it has none.
  private func start(_ entry: Int) -> Int { Int(words[2 * entry + 2].load(ordering: .acquiring)) }

  /// The range of an entry; `nil` if it has none, or gets another one at this moment.
  private func range(_ entry: Int) -> Range<Int>? {
    let first = start(entry)
    let last = Int(words[2 * entry + 3].load(ordering: .acquiring))
    return first > 0 && first == start(entry) && last > first ? first..<last : nil
  }

  /// Tells the others of a range. False: the table is full. For the owner.
  func insert(_ range: Range<Int>) -> Bool {
    guard let entry = (0..<Self.capacity).first(where: { $0 >= end || start($0) == 0 }) else { return false }
    words[2 * entry + 3].store(UInt64(range.upperBound), ordering: .releasing)
    words[2 * entry + 2].store(UInt64(range.lowerBound), ordering: .releasing)
    end = max(end, entry + 1)
    return true
  }

  /// For the owner.
  func remove(_ range: Range<Int>) {
    guard let entry = (0..<end).first(where: { start($0) == range.lowerBound }) else { return }
    words[2 * entry + 2].store(0, ordering: .releasing)
  }

  /// The range in which all of another one lies.
  func range(around part: Range<Int>) -> Range<Int>? {
    (0..<min(end, Self.capacity)).lazy.compactMap { range($0) }
      .first { $0.lowerBound <= part.lowerBound && part.upperBound <= $0.upperBound }
  }
}
