import CCrosspointKernels
import CrosspointCore
import CrosspointTestSupport
import CrosspointTokens
import Testing

@testable import CrosspointCompression

@Suite struct EntropyTests {
  /// Rows whose columns differ in spread, around a mean.
  static func uneven(_ rows: Int, _ hidden: Int, seed: UInt64) -> [Float] {
    var x = normalFloats(rows * hidden, seed: seed)
    for index in x.indices { x[index] = x[index] * (1 + 3 * Float(index % hidden) / Float(hidden)) + 2 }
    return x
  }

  @Test(arguments: [0.5, 1, 1.37, 2.5, 4, 7.9]) func aFrameTakesTheBitsItMay(rate: Double) throws {
    let (rows, hidden) = (900, 96)
    let x = Self.uneven(rows, hidden, seed: 40)
    let groups = [400, 0, 500]
    let frame = try encodeFrame(x, hidden: hidden, groups: groups, as: .entropy(bits: rate))
    let bits = 8 * Double(frame.count - FrameHeader.bytes(groups: 3)) / Double(rows * hidden)
    #expect(bits <= rate * 1.003 && bits > rate * 0.97, "\(bits)")
  }

  /// Whatever the rows and the rate, a frame takes about as many bits; tables of small frames come on top.
  @Test(arguments: 0..<8) func everyRateIsUsed(seed: Int) throws {
    let (rows, hidden) = (160, 64)
    // Heavy tails, and rows of unequal size.
    var x = normalFloats(rows * hidden, seed: UInt64(50 + seed))
    let sizes = normalFloats(rows, seed: UInt64(90 + seed))
    for index in x.indices { x[index] *= abs(x[index]) * (0.1 + abs(sizes[index / hidden])) }
    for rate in stride(from: 2, to: 6, by: 0.1) {
      let frame = try encodeFrame(x, hidden: hidden, groups: [rows], as: .entropy(bits: rate))
      let bits = 8 * Double(frame.count - FrameHeader.bytes(groups: 1)) / Double(rows * hidden)
      #expect(bits > rate * 0.97 && bits < rate * 1.1, "\(bits) bits for \(rate)")
    }
  }

  /// At equal bits the Lloyd-Max quantiser of fixed length makes 13, 20 and 24 % more error on a Gaussian.
  @Test(arguments: zip([2, 3, 4], [0.93, 0.86, 0.82])) func lessErrorThanFixedLength(bits: Int, most: Double) throws {
    let hidden = 128
    let x = normalFloats(1500 * hidden, seed: 41)
    let fixed = relativeError(try roundTrip(x, hidden: hidden, as: .rotated(bits: bits)), x)
    let coded = relativeError(try roundTrip(x, hidden: hidden, as: .entropy(bits: Double(bits) + 2.0 / 16)), x)
    #expect(coded < most * fixed, "\(coded) against \(fixed)")
  }

  @Test func unevenColumnsAreWorthMore() throws {
    let hidden = 128
    var x = normalFloats(1000 * hidden, seed: 42)
    let even = relativeError(try roundTrip(x, hidden: hidden, as: .entropy(bits: 2)), x)
    for index in x.indices { x[index] *= index % hidden < 16 ? 8 : 0.5 }
    let uneven = relativeError(try roundTrip(x, hidden: hidden, as: .entropy(bits: 2)), x)
    #expect(uneven < even / 3, "\(uneven) against \(even)")
  }

  /// One row far from all others has an error in proportion to itself, and the others theirs.
  @Test func oddRowsDoNotHarmTheirNeighbours() throws {
    let (rows, hidden) = (64, 48)
    let x = normalFloats(rows * hidden, seed: 43)
    let calm = try roundTrip(x, hidden: hidden, as: .entropy(bits: 5))
    var odd = x
    for (row, factor) in [(3, Float(1e6)), (9, 1e-6), (17, 0), (20, .nan), (31, .infinity), (40, 0x1p-139), (50, 1e30)]
    {
      for column in 0..<hidden { odd[row * hidden + column] *= column == 5 || factor.isFinite ? factor : 1 }
    }
    let y = try roundTrip(odd, hidden: hidden, groups: [1, 63], as: .entropy(bits: 5))
    for row in 0..<rows {
      let range = row * hidden..<(row + 1) * hidden
      switch row {
      case 20, 31: #expect(y[range].allSatisfy { $0.isNaN }, "\(row)")
      case 50, 3: #expect(relativeError(y[range], odd[range]) < 0.2, "\(row)")
      case 9, 17, 40: #expect(y[range].allSatisfy { $0.isFinite && abs($0) < 1e24 }, "\(row)")
      default: #expect(y[range].allSatisfy { $0.isFinite }, "\(row)")
      }
    }
    // Alone in their groups, nothing of the odd ones touches the rest.
    let apart = try roundTrip(odd, hidden: hidden, groups: Array(repeating: 1, count: rows), as: .entropy(bits: 5))
    for row in 0..<rows {
      let range = row * hidden..<(row + 1) * hidden
      let error = relativeError(apart[range], odd[range])
      switch row {
      case 20, 31: #expect(apart[range].allSatisfy { $0.isNaN })
      case 17, 40: #expect(apart[range].allSatisfy { $0 == 0 })
      default: #expect(error < 0.2, "\(row): \(error)")
      }
    }
    #expect(relativeError(calm, x) < 0.05)
  }

  @Test(arguments: [1, 2, 3, 5, 7, 8, 9, 33]) func smallRowsCome(hidden: Int) throws {
    for rows in [1, 2, 17] {
      let x = randomFloats(rows * hidden, seed: UInt64(hidden * rows))
      let y = try roundTrip(x, hidden: hidden, as: .entropy(bits: 10))
      #expect(relativeError(y, x) < 0.3, "\(rows) × \(hidden)")
    }
  }

  /// Larger frames, so that every table, bit and word is hit; with escapes of both kinds, or without.
  @Test(arguments: [false, true]) func damageUnderAValidChecksumIsRefusedOrDecodes(escapes: Bool) throws {
    let (rows, hidden) = (90, 60)
    let codec = try RowCodec(hidden: hidden, seed: 7, pool: BufferPool())
    var x = Self.uneven(rows, hidden, seed: 44)
    for index in x.indices where escapes && index % hidden < 4 { x[index] *= index % hidden < 2 ? 1e6 : 1e20 }
    let frame = try encodeFrame(x, hidden: hidden, groups: [50, 40], as: .entropy(bits: 3), codec: codec)
    let start = FrameHeader.bytes(groups: 2)
    var generator = SplitMix64(seed: 45)
    var refused = 0
    for round in 0..<1500 {
      var changed = frame
      if round < 400 {
        changed.removeLast(Int(generator.next() % UInt64(frame.count - start)))
      } else {
        for _ in 0..<1 + round % 4 {
          let at = start + Int(generator.next() % UInt64(round % 3 == 0 ? 300 : frame.count - start))
          changed[at] = UInt8(truncatingIfNeeded: generator.next())
        }
      }
      guard changed != frame else { continue }
      reseal(&changed, groups: 2, codec)
      do {
        _ = try decodeFrame(changed, hidden: hidden, groups: [50, 40], codec: codec)
      } catch let error as CrosspointError {
        refused += 1
        #expect(error.code == .corruptFrame)
      }
    }
    // A changed sign or open bit decodes as another number; nearly all else is found.
    #expect(refused > 1000, "\(refused)")
  }

  /// Every magnitude there is, under every kernel, with the same bytes.
  @Test func integersComeBack() throws {
    var values: [Int32] = (0...70000).filter { $0 < 300 || $0 % 97 == 0 }.map { Int32(min($0, 65535)) }
    values += values.map { -$0 }
    var first: [UInt8]?
    for variant in CodecKernelTests.variants {
      let coded = CodedIntegers(values, variant)
      if let first {
        #expect(first == coded.tokens.plain + coded.tokens.words)
      } else {
        first = coded.tokens.plain + coded.tokens.words
      }
      #expect(try coded.decoded(variant) == values)
      // Without the last word or the last plain bits something is missed, and nothing is read beyond.
      var (shortWords, shortBits) = (coded, coded)
      shortWords.tokens.words.removeLast(2)
      #expect(throws: CrosspointError.self) { try shortWords.decoded(variant) }
      shortBits.tokens.plain.removeLast()
      #expect(throws: CrosspointError.self) { try shortBits.decoded(variant) }
    }
  }

  /// Long magnitudes come back to half a step, and what is beyond them bit by bit, in rows and in means.
  @Test func escapesComeBack() throws {
    let (rows, hidden) = (40, 20)
    for factor in [Float(0x1p16), 0x1p20, 0x1p24, 0x1p30, 0x1p100] {
      var x = normalFloats(rows * hidden, seed: 47)
      for index in x.indices {
        if index % hidden == 1 { x[index] *= factor }
        if index % hidden == 2 { x[index] = 3 * factor }
      }
      let frame = try encodeFrame(x, hidden: hidden, groups: [rows], as: .entropy(bits: 8))
      let y = try decodeFrame(frame, hidden: hidden, groups: [rows])
      let step = frame[FrameHeader.bytes(groups: 1)...].withUnsafeBytes { $0.loadUnaligned(as: Float.self) }
      for (a, b) in zip(x, y) { #expect(abs(a - b) <= 2 * step + abs(a) * 0x1p-23, "\(a) became \(b)") }
    }
  }

  /// No encoder writes a raw float that is not finite.
  @Test(arguments: [Float.nan, .infinity]) func aRawFloatThatIsNotFiniteIsRefused(bad: Float) throws {
    let codec = try RowCodec(hidden: 20, seed: 7, pool: BufferPool())
    // Columns have spreads of their own from 16 rows on: then the third one is far beyond the step.
    let x = normalFloats(16 * 20, seed: 48).enumerated().map { $0 % 20 == 2 ? $1 * 1e20 : $1 }
    var frame = try encodeFrame(x, hidden: 20, groups: [16], as: .entropy(bits: 10), codec: codec)
    let start = FrameHeader.bytes(groups: 1)
    // A raw float, at whatever bit it begins.
    var found = false
    let pattern = UInt64(x[22].bitPattern)
    for at in start..<frame.count - 8 {
      for shift in UInt64(0)..<8 where !found {
        var word = frame.withUnsafeBytes { $0.loadUnaligned(fromByteOffset: at, as: UInt64.self) }
        guard word >> shift & 0xFFFF_FFFF == pattern else { continue }
        word = word & ~(0xFFFF_FFFF << shift) | UInt64(bad.bitPattern) << shift
        frame.withUnsafeMutableBytes { $0.storeBytes(of: word, toByteOffset: at, as: UInt64.self) }
        found = true
      }
    }
    #expect(found)
    reseal(&frame, groups: 1, codec)
    let error = #expect(throws: CrosspointError.self) { try decodeFrame(frame, hidden: 20, groups: [16], codec: codec) }
    #expect(error?.code == .corruptFrame)
  }

  @Test func everyKernelQuantisesAlike() {
    let n = 777
    var x = normalFloats(n, seed: 46) + [0]
    for index in stride(from: 0, to: n, by: 9) { x[index] *= [1e4, 1e5, 1e6, 1e7, 1e20][index / 9 % 5] }
    let columns = (0..<n).map { UInt8($0 % 45) }
    var first: ([UInt8], [UInt32], [Float])?
    for variant in CodecKernelTests.variants {
      var scale = xp_entropy_scale(offset: -3, last: 44, shift: 1, first: 3)
      var contexts = [UInt8](repeating: 0, count: n)
      variant.entropy_contexts(&contexts, columns, n, &scale)
      let expected = columns.map { UInt8(3 + max(0, Int($0) - 3) / 2) }
      #expect(contexts == expected)
      var counts = [UInt32](repeating: 0, count: EntropyBody.countCopies * 64 * EntropyBody.stride)
      var sums = [Float](repeating: 0, count: EntropyBody.countCopies * 4 * 64)
      var tokens = [UInt8](repeating: 0, count: n)
      var plain = [UInt8](repeating: 0, count: 4 * n + 16)
      let rounding = [Float](repeating: 0.4, count: 64)
      plain.withUnsafeMutableBufferPointer { plain in
        var writer = xp_entropy_writer(bits: plain.baseAddress!, buffer: 0, count: 0)
        variant.entropy_quantise(&tokens, &writer, &counts, x, n, contexts, rounding, 5)
      }
      variant.entropy_excess(&sums, x, n, contexts, rounding, 5)
      for index in 0..<n where abs(x[index]) < 3 {
        let magnitude = Int(abs(x[index]) * 5 + 0.4)
        #expect(Int(tokens[index]) == (magnitude == 0 ? 0 : 2 * magnitude - (x[index] < 0 ? 0 : 1)))
      }
      #expect(counts.reduce(0, +) == UInt32(n))
      variant.entropy_sum_counts(&counts, 64)
      #expect(counts[..<(64 * EntropyBody.stride)].reduce(0, +) == UInt32(n))
      if let first {
        #expect(first.0 == tokens + plain && first.1 == counts && first.2 == sums)
      } else {
        first = (tokens + plain, counts, sums)
      }
    }
  }

  /// Direct, open, long and raw tokens, at every tail.
  @Test(arguments: [1, 2, 15, 16, 17, 31, 33, 64, 200, 1000]) func everyKernelDecodesFloatsAlike(n: Int) {
    let (step, first) = (Float(0.5), Float(0x1p24) * 0.5)
    var y = normalFloats(n, seed: 49).map { 5 * $0 }
    for index in stride(from: 0, to: n, by: 3) { y[index] *= [10, 1e4, 3e5, 1e6, 1e20][index / 3 % 5] }
    let coded = CodedFloats(y, step: step)
    var bits: [UInt32]?
    for variant in CodecKernelTests.variants {
      let (out, isWhole) = coded.decoded(variant)
      #expect(isWhole && out[n] == 7, "\(String(cString: variant.name))")
      for (a, b) in zip(y, out) { #expect(abs(a) >= first ? a == b : abs(a - b) <= step, "\(a) became \(b)") }
      if let bits { #expect(bits == out.map(\.bitPattern)) } else { bits = out.map(\.bitPattern) }
    }
  }

  @Test func tokensOfAnyFrequencyCodeAsIntegerDivisionDoes() {
    var generator = SplitMix64(seed: 47)
    for frequency in Array(UInt32(1)...40) + Array(stride(from: 41, to: UInt32(EntropyBody.total), by: 97)) + [2047] {
      let tokens = (0..<261).map { _ in UInt8(generator.next() >> 63) }
      let symbols = [frequency, UInt32(EntropyBody.total) - frequency | frequency << 16]
      var states = [UInt32](repeating: EntropyBody.state, count: EntropyBody.states)
      var words: [UInt16] = []
      for (index, token) in tokens.enumerated().reversed() {
        let (size, start) = (symbols[Int(token)] & 0xFFFF, symbols[Int(token)] >> 16)
        var state = states[index % EntropyBody.states]
        if state >> 20 >= size {
          words.append(UInt16(truncatingIfNeeded: state))
          state >>= 16
        }
        states[index % EntropyBody.states] = (state / size) << 11 + state % size + start
      }
      for variant in CodecKernelTests.variants {
        var found = [UInt32](repeating: EntropyBody.state, count: EntropyBody.states)
        var bytes = [UInt8](repeating: 0, count: 2 * tokens.count + 32)
        let start = bytes.withUnsafeMutableBufferPointer { bytes in
          let end = bytes.baseAddress! + bytes.count
          return variant.entropy_encode(end, &found, tokens, tokens.count, nil, 0, symbols)! - bytes.baseAddress!
        }
        let expected = words.reversed().flatMap { [UInt8(truncatingIfNeeded: $0), UInt8($0 >> 8)] }
        #expect(
          found == states && bytes[start...].elementsEqual(expected),
          "\(frequency) of 2048 by \(String(cString: variant.name))")
      }
    }
  }
}

/// Tokens as a body has them: words, plain bits and states.
private struct CodedTokens {
  let symbols: [UInt32]
  private let states: [UInt32]
  var plain: [UInt8]
  var words: [UInt8]

  /// - Parameter quantise: makes so many tokens, with their plain bits and counts.
  init(
    _ count: Int, contexts: [UInt8]? = nil, contextCount: Int = 1, _ kernels: xp_kernels,
    quantise: (UnsafeMutablePointer<UInt8>, inout xp_entropy_writer, UnsafeMutablePointer<UInt32>) -> Void
  ) {
    var counts = [UInt32](repeating: 0, count: EntropyBody.countCopies * contextCount * EntropyBody.stride)
    var tokens = [UInt8](repeating: 0, count: count)
    var plain = [UInt8](repeating: 0, count: 4 * count + 16)
    let plainBytes = plain.withUnsafeMutableBufferPointer { plain in
      var writer = xp_entropy_writer(bits: plain.baseAddress!, buffer: 0, count: 0)
      quantise(&tokens, &writer, &counts)
      return writer.bits - plain.baseAddress! + (writer.count > 0 ? 1 : 0)
    }
    kernels.entropy_sum_counts(&counts, contextCount)
    var symbols: [UInt32] = []
    for context in 0..<contextCount {
      var own = [UInt32](repeating: 0, count: EntropyBody.stride)
      _ = EntropyTable.normalise(Array(counts[(context * EntropyBody.stride)...]), into: &own)
      symbols += own
    }
    var states = [UInt32](repeating: EntropyBody.state, count: EntropyBody.states)
    var words = [UInt8](repeating: 0, count: 2 * count + 128)
    let start = words.withUnsafeMutableBufferPointer { words in
      let end = words.baseAddress! + words.count
      return kernels.entropy_encode(end, &states, tokens, count, contexts, 0, symbols)! - words.baseAddress!
    }
    self.plain = Array(plain[..<plainBytes])
    self.words = Array(words[start...])
    (self.symbols, self.states) = (symbols, states)
  }

  /// Runs a decoder; says whether it ends where it should.
  func decode(slots: [UInt32], levels: [Float] = [], _ run: (inout xp_entropy_decoder) -> Void) -> Bool {
    var decoder = xp_entropy_decoder()
    withUnsafeMutableBytes(of: &decoder.states) { $0.copyBytes(from: states.withUnsafeBytes { Array($0) }) }
    var bitsUsed = 0
    words.withUnsafeBufferPointer { words in
      plain.withUnsafeBufferPointer { plain in
        slots.withUnsafeBufferPointer { slots in
          levels.withUnsafeBufferPointer { levels in
            decoder.words = words.baseAddress!
            decoder.words_end = words.baseAddress! + words.count
            decoder.bits = plain.baseAddress!
            decoder.bits_end = plain.baseAddress! + plain.count
            (decoder.slots, decoder.levels) = (slots.baseAddress, levels.baseAddress)
            run(&decoder)
            bitsUsed = 8 * (decoder.bits - plain.baseAddress! + Int(decoder.beyond)) - Int(decoder.count)
          }
        }
      }
    }
    let isBack = withUnsafeBytes(of: decoder.states) { Array($0.bindMemory(to: UInt32.self)) }
      .allSatisfy { $0 == EntropyBody.state }
    return decoder.overrun == 0 && decoder.words == decoder.words_end && (bitsUsed + 7) / 8 == plain.count && isBack
  }
}

/// Floats as tokens under three contexts in turn, coded by the first kernel, decoded by any.
private struct CodedFloats {
  private static let contextCount = 3
  private let step: Float
  private let contexts: [UInt8]
  private let coded: CodedTokens

  init(_ y: [Float], step: Float) {
    let kernels = CodecKernelTests.variants[0]
    let contexts = y.indices.map { UInt8($0 % Self.contextCount) }
    (self.step, self.contexts) = (step, contexts)
    coded = CodedTokens(y.count, contexts: contexts, contextCount: Self.contextCount, kernels) {
      tokens, writer, counts in
      let rounding = [Float](repeating: 0.5, count: EntropyBody.contextCapacity)
      kernels.entropy_quantise(tokens, &writer, counts, y, y.count, contexts, rounding, 1 / step)
    }
  }

  /// The floats and a 7 behind them, and whether decoding ends where it should.
  func decoded(_ kernels: xp_kernels) -> ([Float], isWhole: Bool) {
    var out = [Float](repeating: 7, count: contexts.count + 1)
    var slots = [UInt32](repeating: 0, count: Self.contextCount * EntropyBody.total)
    var levels = [Float](repeating: 0, count: Self.contextCount * EntropyBody.stride)
    for context in 0..<Self.contextCount {
      let first = context * EntropyBody.stride
      for token in 0..<EntropyBody.stride {
        let symbol = coded.symbols[first + token]
        guard symbol & 0xFFFF > 0 else { continue }
        slots.withUnsafeMutableBufferPointer { slots in
          let start = context * EntropyBody.total + Int(symbol >> 16)
          kernels.entropy_fill_slots(slots.baseAddress! + start, UInt32(token), symbol & 0xFFFF)
        }
      }
      for m in 1..<EntropyBody.direct {
        (levels[first + 2 * m - 1], levels[first + 2 * m]) = (Float(m), -Float(m))
      }
    }
    let isWhole = coded.decode(slots: slots, levels: levels) {
      kernels.entropy_decode(&out, contexts.count, &$0, contexts, step)
    }
    return (out, isWhole)
  }
}

/// Integers as tokens under one context, coded and decoded by one kernel.
private struct CodedIntegers {
  private let count: Int
  private let table: [UInt8]
  var tokens: CodedTokens

  init(_ values: [Int32], _ kernels: xp_kernels) {
    count = values.count
    let coded = CodedTokens(count, kernels) { tokens, writer, counts in
      kernels.entropy_tokens(tokens, &writer, counts, values, values.count, 0)
    }
    var table = [UInt8](repeating: 0, count: 3 * EntropyBody.stride)
    let size = table.withUnsafeMutableBytes { EntropyTable.write(coded.symbols, to: $0.baseAddress!) }
    (self.table, self.tokens) = (Array(table[..<size]), coded)
  }

  /// Throws where it does not end where it should.
  func decoded(_ kernels: xp_kernels) throws -> [Int32] {
    var slots = [UInt32](repeating: 0, count: EntropyBody.total)
    try table.withUnsafeBytes { (table) throws in
      var cursor = ByteCursor(base: table.baseAddress!, count: table.count, offset: 0)
      let used = try EntropyTable.read(&cursor, slots: &slots)
      #expect(used && cursor.offset == table.count)
    }
    var found = [Int32](repeating: 0, count: count)
    guard tokens.decode(slots: slots, { kernels.entropy_decode_integers(&found, count, &$0, 0) }) else {
      throw CrosspointError.corrupt("codes", "")
    }
    return found
  }
}
