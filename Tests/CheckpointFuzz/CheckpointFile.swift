import CrosspointCore
import MoELM

/// A checkpoint as its parts, to be changed and put together again with a right checksum.
struct CheckpointFile {
  private var header: [UInt8]
  private var payload: [UInt8]
  /// What the file says of its header's length, if not the truth.
  private var claimedLength: UInt64?

  init(_ bytes: [UInt8]) {
    let length = bytes.withUnsafeBytes { Int($0.loadUnaligned(fromByteOffset: 8, as: UInt64.self)) }
    header = Array(bytes[16..<16 + length])
    while header.last == UInt8(ascii: " ") { header.removeLast() }
    payload = Array(bytes[(16 + length)..<(bytes.count - 8)])
  }

  var bytes: [UInt8] {
    let padding = [UInt8](repeating: UInt8(ascii: " "), count: (8 - header.count % 8) % 8)
    let length = claimedLength ?? UInt64(header.count + padding.count)
    let body =
      Array("MoELM".utf8) + [0, 0, 5] + withUnsafeBytes(of: length.littleEndian) { Array($0) } + header + padding
      + payload
    let sum = body.withUnsafeBytes { Checkpoint.checksum([$0]) }
    return body + withUnsafeBytes(of: sum.littleEndian) { Array($0) }
  }

  /// With one change, seldom with two or three.
  func changed(_ generator: inout SplitMix64) -> CheckpointFile {
    var file = self
    for _ in 0..<pick([1, 1, 1, 2, 3], &generator) { file.change(&generator) }
    return file
  }

  private mutating func change(_ generator: inout SplitMix64) {
    switch generator.next() % 12 {
    case 0, 1, 2: replace(Self.numbers(header), by: Self.counts, &generator)
    case 3: replace(Self.numbers(header), by: Self.oddities, &generator)
    case 4: replace(Self.strings(header), by: Self.texts, &generator)
    case 5: copyString(&generator)
    case 6: copy(Self.groups(header), &generator)
    case 7: repeatOrRemove(&generator)
    case 8, 9: changeFloat(&generator)
    case 10: resize(&generator)
    default:
      switch generator.next() % 3 {
      case 0: header[pick(header.indices, &generator)] = UInt8(truncatingIfNeeded: generator.next())
      case 1: claimedLength = pick([0, 8, 1 << 26, 1 << 63, .max, UInt64(header.count), generator.next()], &generator)
      default: changeSize(&generator)
      }
    }
  }

  private static let counts = [
    "-1", "0", "1", "2", "3", "5", "9", "10", "11", "12", "13", "1048576", "1048577", "4294967296", "9007199254740991",
    "9007199254740992", "9007199254740993", "4611686018427387904", "9223372036854775807", "-9223372036854775808",
    // Bit patterns of doubles: 1, infinite, not a number.
    "4607182418800017408", "9218868437227405312", "9221120237041090560",
  ]
  private static let oddities = [
    "0.5", "1e-320", "1e38", "1e308", "-1e308", "1e400", "NaN", "null", "true", "\"1\"", "[]", "{}",
    "18446744073709551615",
  ]
  private static let texts = [
    "\"\"", "\"0\"", "\"1\"", "\"2\"", "\"3\"", "\"4\"", "\"-1\"", "\"1048576\"", "\"9223372036854775807\"", "\"nan\"",
    "\"inf\"", "\"1e400\"", "\"0.5\"", "\"true\"", "\"fp16\"", "\"entropy:0.1\"", "\"entropy:10\"", "\"mixed:1,8\"",
    "\"masked\"", "\"auto\"", "\"rate:0.9\"", "\"1,2,4\"", "\"random\"", "\"attention\"", "\"block1.norm1.gain\"",
  ]
  private static let floats: [Float] = [
    .nan, .infinity, -.infinity, -0, 0, -1, 1, 1e38, -1e38, .greatestFiniteMagnitude, .leastNonzeroMagnitude, 1e-30,
  ]

  private mutating func replace(_ ranges: [Range<Int>], by texts: [String], _ generator: inout SplitMix64) {
    guard !ranges.isEmpty else { return }
    header.replaceSubrange(pick(ranges, &generator), with: pick(texts, &generator).utf8)
  }

  /// One part over another that begins like it.
  private mutating func copy(_ ranges: [Range<Int>], _ generator: inout SplitMix64) {
    guard !ranges.isEmpty else { return }
    let part = Array(header[pick(ranges, &generator)])
    let similar = ranges.filter { header[$0].prefix(8) == part.prefix(8) }
    header.replaceSubrange(pick(similar, &generator), with: part)
  }

  /// Names and values are tried in each other's place.
  private mutating func copyString(_ generator: inout SplitMix64) {
    let strings = Self.strings(header)
    guard !strings.isEmpty else { return }
    let text = Array(header[pick(strings, &generator)])
    header.replaceSubrange(pick(strings, &generator), with: text)
  }

  private mutating func repeatOrRemove(_ generator: inout SplitMix64) {
    let ranges = Self.groups(header)
    guard !ranges.isEmpty else { return }
    let range = pick(ranges, &generator)
    let hasComma = range.upperBound < header.count && header[range.upperBound] == UInt8(ascii: ",")
    if generator.next() % 2 == 0 {
      header.insert(contentsOf: header[range] + [UInt8(ascii: ",")], at: range.lowerBound)
    } else {
      header.removeSubrange(hasComma ? range.lowerBound..<range.upperBound + 1 : range)
    }
  }

  private mutating func changeFloat(_ generator: inout SplitMix64) {
    guard payload.count >= 4 else { return }
    let place = 4 * Int(generator.next() % UInt64(payload.count / 4))
    let bits = pick(Self.floats, &generator).bitPattern
    for byte in 0..<4 { payload[place + byte] = UInt8(truncatingIfNeeded: bits >> (8 * UInt32(byte))) }
  }

  private mutating func resize(_ generator: inout SplitMix64) {
    let count = 4 * Int(generator.next() % 64)
    if generator.next() % 2 == 0 {
      payload += [UInt8](repeating: 0, count: count)
    } else {
      payload.removeLast(min(count, payload.count))
    }
  }

  /// Another number of floats in one place of the header, and as many in the file.
  private mutating func changeSize(_ generator: inout SplitMix64) {
    let key = Array("\"count\":".utf8)
    let numbers = Self.numbers(header).filter {
      $0.lowerBound >= key.count && header[($0.lowerBound - key.count)...].starts(with: key)
    }
    guard !numbers.isEmpty else { return }
    let range = pick(numbers, &generator)
    guard let count = Int(String(decoding: header[range], as: UTF8.self)), count >= 0, count < 1 << 20 else { return }
    let more = Int(generator.next() % 16)
    header.replaceSubrange(range, with: "\(count + more)".utf8)
    payload += [UInt8](repeating: 0, count: pick([4, 12], &generator) * more)
  }

  // What a header is made of. A few wrong ranges in a header that was changed already do no harm.

  private static func numbers(_ header: [UInt8]) -> [Range<Int>] {
    var ranges: [Range<Int>] = []
    var (start, isText): (Int?, Bool) = (nil, false)
    for (place, byte) in header.enumerated() {
      let isDigit = !isText && (byte >= 48 && byte <= 57 || byte == 45 || byte == 46 || byte == 69 || byte == 101)
      if isDigit, start == nil { start = place }
      if !isDigit, let begun = start {
        ranges.append(begun..<place)
        start = nil
      }
      if byte == UInt8(ascii: "\"") { isText.toggle() }
    }
    // `true`, `false` and keys have an `e`, too.
    return ranges.filter { header[$0].contains { $0 >= 48 && $0 <= 57 } }
  }

  /// Strings that are no keys.
  private static func strings(_ header: [UInt8]) -> [Range<Int>] {
    let quotes = header.indices.filter { header[$0] == UInt8(ascii: "\"") }
    return stride(from: 0, to: quotes.count - 1, by: 2).map { quotes[$0]..<quotes[$0 + 1] + 1 }
      .filter { $0.upperBound >= header.count || header[$0.upperBound] != UInt8(ascii: ":") }
  }

  /// Objects and arrays, brackets included.
  private static func groups(_ header: [UInt8]) -> [Range<Int>] {
    var (open, ranges): ([Int], [Range<Int>]) = ([], [])
    for (place, byte) in header.enumerated() {
      if byte == UInt8(ascii: "{") || byte == UInt8(ascii: "[") { open.append(place) }
      if byte == UInt8(ascii: "}") || byte == UInt8(ascii: "]"), let start = open.popLast() {
        ranges.append(start..<place + 1)
      }
    }
    return ranges.filter { $0.lowerBound > 0 }
  }
}

private func pick<Choices: RandomAccessCollection>(
  _ choices: Choices, _ generator: inout SplitMix64
) -> Choices.Element {
  choices[choices.index(choices.startIndex, offsetBy: Int(generator.next() % UInt64(choices.count)))]
}
