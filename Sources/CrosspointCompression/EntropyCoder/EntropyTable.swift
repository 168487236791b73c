import CrosspointCore
import CrosspointTokens
import Glibc

/// Frequencies of a context's tokens: made, written, read.
///
/// A table has an entry for zero, one for each direct magnitude, whose two signs are equally frequent, and one for each
/// further token.
enum EntropyTable {
  private static let openToken = 2 * EntropyBody.direct - 1
  /// The escapes: magnitudes from 2^16 to 2^24; what is at least 2^24 steps, the float itself.
  private static let longToken = 55
  private static let rawToken = 56
  static let entries = rawToken - openToken + 1 + EntropyBody.direct

  /// The first of an entry's tokens.
  private static func token(_ entry: Int) -> Int {
    entry < EntropyBody.direct ? max(0, 2 * entry - 1) : entry + EntropyBody.direct - 1
  }
  /// How many it has.
  private static func width(_ entry: Int) -> Int { (1..<EntropyBody.direct).contains(entry) ? 2 : 1 }

  /// Turns counts into symbols (frequency, start << 16) whose frequencies sum to 2048; returns the bits that the counted
  /// tokens will take, open bits and signs included.
  static func normalise(_ counts: UnsafePointer<UInt32>, into symbols: UnsafeMutablePointer<UInt32>) -> Double {
    symbols.update(repeating: 0, count: EntropyBody.stride)
    return withUnsafeTemporaryAllocation(of: (count: Int, frequency: Int).self, capacity: entries) { table in
      var sum = 0
      for entry in 0..<entries {
        let first = token(entry)
        table[entry] = (Int(counts[first]) + (width(entry) == 2 ? Int(counts[first + 1]) : 0), 0)
        sum += table[entry].count
      }
      guard sum > 0 else { return 0 }
      share(table, sum)
      var bits = 0.0
      for entry in 0..<entries where table[entry].count > 0 {
        let frequency = Double(table[entry].frequency / width(entry))
        bits += Double(table[entry].count) * (11 - log2(frequency) + Double(plainBits(token(entry))))
      }
      for entry in 0..<entries {
        for sign in 0..<width(entry) {
          symbols[token(entry) + sign] = UInt32(table[entry].frequency / width(entry))
        }
      }
      accumulate(symbols)
      return bits
    }
  }

  /// Shares 2048 among the entries; those of two tokens get an even part.
  private static func share(_ table: UnsafeMutableBufferPointer<(count: Int, frequency: Int)>, _ sum: Int) {
    var left = EntropyBody.total
    for entry in table.indices where table[entry].count > 0 {
      let width = width(entry)
      let parts = EntropyBody.total / width
      table[entry].frequency = width * max(1, (table[entry].count * parts + sum / 2) / sum)
      left -= table[entry].frequency
    }
    func mostFrequent(where isAllowed: (Int) -> Bool) -> Int {
      var most = 0
      for entry in table.indices where isAllowed(entry) && table[entry].frequency > table[most].frequency {
        most = entry
      }
      return most
    }
    func add(_ change: Int, to entry: Int) {
      table[entry].frequency += change
      left -= change
    }
    // What rounding left over or took too much: from the most frequent, which feels it least.
    if !left.isMultiple(of: 2) {
      let single = mostFrequent { width($0) == 1 }
      add(left < 0 && table[single].frequency > 1 ? -1 : 1, to: single)
    }
    while left != 0 {
      let most = mostFrequent { _ in true }
      add(left > 0 ? left : max(left, -(table[most].frequency / 4 * 2)), to: most)
    }
  }

  /// Bits that follow a token: those it leaves open, and a sign; of a long magnitude the most that may be.
  private static func plainBits(_ token: Int) -> Int {
    switch token {
    case ..<openToken: 0
    case longToken: 3 + 23 + 1
    case rawToken: 32
    default: 4 + (token - openToken) / 2
    }
  }

  private static func accumulate(_ symbols: UnsafeMutablePointer<UInt32>) {
    var start: UInt32 = 0
    for token in 0..<EntropyBody.stride where symbols[token] > 0 {
      let frequency = symbols[token]
      symbols[token] |= start << 16
      start += frequency
    }
  }

  /// Bytes of a table as it is written.
  static func bytes(_ symbols: UnsafePointer<UInt32>) -> Int {
    withUnsafeTemporaryAllocation(byteCount: 1 + 2 * entries, alignment: 1) { write(symbols, to: $0.baseAddress!) }
  }

  /// Writes one table: number of entries, then the frequency of each one's tokens in one or two bytes.
  static func write(_ symbols: UnsafePointer<UInt32>, to out: UnsafeMutableRawPointer) -> Int {
    var count = entries
    while count > 0, symbols[token(count - 1)] & 0xFFFF == 0 { count -= 1 }
    out.put(UInt8(count), at: 0)
    var end = 1
    for entry in 0..<count {
      let frequency = symbols[token(entry)] & 0xFFFF
      if frequency < 128 {
        out.put(UInt8(frequency), at: end)
        end += 1
      } else {
        out.put(UInt8(128 | frequency & 127), at: end)
        out.put(UInt8(frequency >> 7), at: end + 1)
        end += 2
      }
    }
    return end
  }

  /// Reads one table into its 2048 slots; a table of no entries stands for zeros alone. Says whether it has some.
  static func read(
    _ cursor: inout ByteCursor, slots: UnsafeMutablePointer<UInt32>
  ) throws(CrosspointError) -> Bool {
    let count = Int(try cursor.next())
    guard count <= entries else { throw .corrupt("table", "\(count) entries; at most \(entries)") }
    var sum = 0
    func fill(_ token: Int, _ frequency: Int) throws(CrosspointError) {
      guard frequency > 0 else { return }
      guard sum + frequency <= EntropyBody.total else {
        throw .corrupt("table", "frequencies beyond their sum of \(EntropyBody.total)")
      }
      kernels.entropy_fill_slots(slots + sum, UInt32(token), UInt32(frequency))
      sum += frequency
    }
    for entry in 0..<count {
      var frequency = Int(try cursor.next())
      if frequency >= 128 { frequency = frequency & 127 | Int(try cursor.next()) << 7 }
      for sign in 0..<width(entry) { try fill(token(entry) + sign, frequency) }
    }
    if count == 0 { try fill(0, EntropyBody.total) }
    guard sum == EntropyBody.total else {
      throw .corrupt("table", "frequencies sum to \(sum) instead of \(EntropyBody.total)")
    }
    return count > 0
  }
}

/// Bytes read one behind the other, never beyond their end.
struct ByteCursor {
  let base: UnsafeRawPointer
  let count: Int
  var offset: Int

  mutating func next() throws(CrosspointError) -> UInt8 {
    guard offset < count else { throw .corrupt("table", "the tables reach beyond the body of \(count) bytes") }
    defer { offset += 1 }
    return base.get(at: offset)
  }
}
