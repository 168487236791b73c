/// Numbers the distinct id tuples of members 0, 1, … in order of first appearance.
///
/// Ids themselves are compared, so that no accident of hashing joins two buckets. Borrows its memory.
struct BucketTable {
  /// `functions` ids of each row; member m has those of row `rows[m]`, or of row m where there are no `rows`.
  let ids: UnsafePointer<UInt32>
  let functions: Int
  let rows: UnsafePointer<Int32>?
  /// The first member of each bucket, at a place that its ids tell; −1 where there is none.
  private let slots: UnsafeMutablePointer<Int32>
  private let mask: Int
  /// The bucket of each member so far.
  private let bucketOf: UnsafeMutablePointer<Int32>
  /// Buckets so far.
  private(set) var count = 0

  /// Slots that so many members need: a power of two above their number.
  static func slots(members: Int) -> Int { 4 * max(1, members).largestPowerOfTwoWithin }

  /// - Parameters:
  ///   - slots: space for ``slots(members:)``.
  ///   - bucketOf: space for the bucket of each member.
  init(
    ids: UnsafePointer<UInt32>, functions: Int, rows: UnsafePointer<Int32>?, members: Int,
    slots: UnsafeMutablePointer<Int32>, bucketOf: UnsafeMutablePointer<Int32>
  ) {
    self.ids = ids
    self.functions = functions
    self.rows = rows
    self.slots = slots
    self.bucketOf = bucketOf
    mask = Self.slots(members: members) - 1
    slots.update(repeating: -1, count: mask + 1)
  }

  /// Finds the bucket of the next member, whose ids are known by now.
  mutating func add(_ member: Int) {
    let mine = ids(of: member)
    var hash: UInt64 = 0
    for function in 0..<functions {
      hash = (hash ^ UInt64(mine[function])) &* 0x9E37_79B9_7F4A_7C15
      hash ^= hash >> 29
    }
    var slot = Int(truncatingIfNeeded: hash) & mask
    while slots[slot] >= 0 {
      let first = Int(slots[slot])
      if agree(mine, ids(of: first)) {
        bucketOf[member] = bucketOf[first]
        return
      }
      slot = (slot + 1) & mask
    }
    slots[slot] = Int32(member)
    bucketOf[member] = Int32(count)
    count += 1
  }

  private func ids(of member: Int) -> UnsafePointer<UInt32> {
    ids + (rows.map { Int($0[member]) } ?? member) * functions
  }

  private func agree(_ a: UnsafePointer<UInt32>, _ b: UnsafePointer<UInt32>) -> Bool {
    for function in 0..<functions where a[function] != b[function] { return false }
    return true
  }
}
