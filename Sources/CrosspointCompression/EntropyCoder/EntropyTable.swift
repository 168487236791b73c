import CrosspointCore

#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// Frequencies of a context's tokens: made, written, read.
enum EntropyTable {
  /// Turns counts into symbols (frequency, start << 16) whose frequencies sum to 2048; returns the bits that the counted
  /// tokens will take, open bits and signs included.
  static func normalise(_ counts: UnsafePointer<UInt32>, into symbols: UnsafeMutablePointer<UInt32>) -> Double {
    var sum = 0
    for token in 0..<EntropyBody.tokens { sum += Int(counts[token]) }
    guard sum > 0 else {
      symbols.update(repeating: 0, count: EntropyBody.stride)
      return 0
    }
    var left = EntropyBody.total
    for token in 0..<EntropyBody.tokens {
      let count = Int(counts[token])
      let frequency = count == 0 ? 0 : max(1, (count * EntropyBody.total + sum / 2) / sum)
      symbols[token] = UInt32(frequency)
      left -= frequency
    }
    // What rounding left over or took too much: from the most frequent, which feels it least.
    while left != 0 {
      var most = 0
      for token in 1..<EntropyBody.tokens where symbols[token] > symbols[most] { most = token }
      let change = left > 0 ? left : max(left, -Int(symbols[most]) / 2)
      symbols[most] = UInt32(Int(symbols[most]) + change)
      left -= change
    }
    var bits = 0.0
    for token in 0..<EntropyBody.tokens where counts[token] > 0 {
      let cost = 11 - log2(Double(symbols[token])) + Double(plainBits(token))
      bits += Double(counts[token]) * cost
    }
    accumulate(symbols)
    return bits
  }

  /// Bits that follow a token: those it leaves open, and a sign; of a long magnitude the most that may be.
  private static func plainBits(_ token: Int) -> Int {
    switch token {
    case 0: 0
    case ..<EntropyBody.plainTokens: 1
    case EntropyBody.longToken: 3 + 23 + 1
    case EntropyBody.rawToken: 32
    default: 2 + (token - EntropyBody.plainTokens) / 4
    }
  }

  private static func accumulate(_ symbols: UnsafeMutablePointer<UInt32>) {
    var start: UInt32 = 0
    for token in 0..<EntropyBody.tokens {
      let frequency = symbols[token]
      symbols[token] |= start << 16
      start += frequency
    }
    for token in EntropyBody.tokens..<EntropyBody.stride { symbols[token] = 0 }
  }

  /// Writes one table: number of tokens, then each frequency in one or two bytes.
  static func write(_ symbols: UnsafePointer<UInt32>, to out: UnsafeMutableRawPointer) -> Int {
    var count = EntropyBody.tokens
    while count > 0, symbols[count - 1] & 0xFFFF == 0 { count -= 1 }
    out.put(UInt8(count), at: 0)
    var end = 1
    for token in 0..<count {
      let frequency = symbols[token] & 0xFFFF
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

  /// Reads one table into symbols and the tokens of its 2048 slots; a table of no tokens stands for zeros alone.
  static func read(
    _ cursor: inout ByteCursor, symbols: UnsafeMutablePointer<UInt32>, slots: UnsafeMutablePointer<UInt8>
  ) throws(CrosspointError) -> Bool {
    let count = Int(try cursor.next())
    guard count <= EntropyBody.tokens else { throw .corrupt("table", "\(count) tokens; at most \(EntropyBody.tokens)") }
    symbols.update(repeating: 0, count: EntropyBody.stride)
    var sum = 0
    for token in 0..<count {
      var frequency = UInt32(try cursor.next())
      if frequency >= 128 { frequency = frequency & 127 | UInt32(try cursor.next()) << 7 }
      guard sum + Int(frequency) <= EntropyBody.total else {
        throw .corrupt("table", "frequencies beyond their sum of \(EntropyBody.total)")
      }
      symbols[token] = frequency
      (slots + sum).update(repeating: UInt8(token), count: Int(frequency))
      sum += Int(frequency)
    }
    if count == 0 {
      symbols[0] = UInt32(EntropyBody.total)
      slots.update(repeating: 0, count: EntropyBody.total)
      sum = EntropyBody.total
    }
    guard sum == EntropyBody.total else {
      throw .corrupt("table", "frequencies sum to \(sum) instead of \(EntropyBody.total)")
    }
    accumulate(symbols)
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
