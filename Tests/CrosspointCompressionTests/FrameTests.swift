import CCrosspointKernels
import CrosspointCore
import CrosspointTestSupport
import CrosspointTokens
import Testing

@testable import CrosspointCompression

@Suite struct FrameTests {
  static let hidden = 12
  static let groups = [3, 0, 2]
  static let variety: [(WireFormat, RowRounding)] =
    WireFormat.all.map { ($0, .nearest) }
    + ["rotated:1", "rotated:2", "rotated:4", "mixed:2,4", "entropy:2", "weighted:2"].map {
      (WireFormat($0)!, .unbiased(key: 11))
    }

  /// Rows with a common part, so that they compress and a mean pays.
  static func rows(_ groups: [Int], hidden: Int) -> [Float] {
    randomFloats(groups.reduce(0, +) * hidden, seed: 30).map { ($0 * 4).rounded() + 100 }
  }

  static func codecAndFrame(
    _ format: WireFormat, _ rounding: RowRounding = .nearest
  ) throws -> (RowCodec, [UInt8]) {
    let codec = try RowCodec(hidden: hidden, seed: 7, pool: BufferPool())
    let x = rows(groups, hidden: hidden)
    let frame = try encodeFrame(
      x, hidden: hidden, groups: groups, as: format, rounding: rounding,
      codec: codec)
    return (codec, frame)
  }

  /// The error of decoding, which must be one of the two that damage may give.
  static func damage(_ frame: [UInt8], _ codec: RowCodec, groups: [Int] = groups) -> CrosspointError.Code? {
    do {
      _ = try decodeFrame(frame, hidden: codec.hidden, groups: groups, codec: codec)
      return nil
    } catch let error as CrosspointError {
      return [.corruptFrame, .truncatedFrame].contains(error.code) ? error.code : nil
    } catch {
      return nil
    }
  }

  /// Rows sealed where they lie make the very frame that encoding them makes; a changed or moved row is found.
  @Test(arguments: [1, 64, 67, 200])
  func aSealedFrameIsTheEncodedOne(hidden: Int) throws {
    let counts = [3, 0, 5]
    let codec = try RowCodec(hidden: hidden, seed: 7, pool: BufferPool())
    var x = Self.rows(counts, hidden: hidden)
    let frame = try encodeFrame(x, hidden: hidden, groups: counts, as: .fp32, codec: codec)
    let size = RowCodec.headerBytes(groups: counts.count)
    let header = UnsafeMutableRawBufferPointer.allocate(byteCount: size, alignment: 8)
    defer { header.deallocate() }
    try x.withUnsafeMutableBufferPointer { x in
      let base = x.baseAddress!
      // Not in the order of memory.
      let starts = [5 * hidden, 0, 0]
      let sources = zip(starts, counts).map { RowSource(base: base + $0, rows: $1) }
      let targets = zip(starts, counts).map { RowTarget(base: base + $0, rows: $1) }
      #expect(try codec.seal(sources, admitting: .finite, header: header) == 8 * 4 * hidden)
      try codec.verify(header: UnsafeRawBufferPointer(header), in: targets)
      base[8 * hidden - 1] += 1
      #expect(throws: CrosspointError.self) { try codec.verify(header: UnsafeRawBufferPointer(header), in: targets) }
      base[8 * hidden - 1] = .infinity
      #expect(throws: CrosspointError.self) { try codec.seal(sources, admitting: .finite, header: header) }
      base[8 * hidden - 1] = 0

      let inOrder = zip([0, 0, 3 * hidden], counts).map { RowSource(base: base + $0, rows: $1) }
      _ = try codec.seal(inOrder, admitting: .any, header: header)
    }
    let again = try encodeFrame(x, hidden: hidden, groups: counts, as: .fp32, codec: codec)
    #expect(Array(header) == Array(again[..<size]))
    #expect(Array(again[..<size]) != Array(frame[..<size]))
  }

  @Test func aFrameInAnotherFormatIsRefusedInPlace() throws {
    let (codec, frame) = try Self.codecAndFrame(.bf16)
    var y = [Float](repeating: 0, count: Self.groups.reduce(0, +) * Self.hidden)
    #expect(throws: CrosspointError.self) {
      try frame.withUnsafeBytes { frame in
        try y.withUnsafeMutableBufferPointer { y in
          var start = y.baseAddress!
          let targets = Self.groups.map { rows in
            defer { start += rows * Self.hidden }
            return RowTarget(base: start, rows: rows)
          }
          let header = UnsafeRawBufferPointer(rebasing: frame[..<RowCodec.headerBytes(groups: targets.count)])
          try codec.verify(header: header, in: targets)
        }
      }
    }
  }

  @Test func truncationAtEveryLengthIsFound() throws {
    for (format, rounding) in Self.variety {
      let (codec, frame) = try Self.codecAndFrame(format, rounding)
      for length in 0..<frame.count {
        #expect(Self.damage(Array(frame.prefix(length)), codec) == .truncatedFrame, "\(format) cut at \(length)")
      }
      #expect(Self.damage(frame + [0], codec) == .corruptFrame)
    }
  }

  @Test func everyFlippedBitIsFound() throws {
    for (format, rounding) in Self.variety {
      var (codec, frame) = try Self.codecAndFrame(format, rounding)
      for bit in 0..<8 * frame.count {
        frame[bit / 8] ^= 1 << (bit % 8)
        #expect(Self.damage(frame, codec) != nil, "\(format), bit \(bit)")
        frame[bit / 8] ^= 1 << (bit % 8)
      }
    }
  }

  @Test func otherGroupsThanExpectedAreRefused() throws {
    for (format, rounding) in Self.variety {
      let (codec, frame) = try Self.codecAndFrame(format, rounding)
      for groups in [[], [5], [3, 2], [3, 2, 0], [3, 0, 3], [3, 0, 1], [3, 0, 2, 0]] {
        #expect(Self.damage(frame, codec, groups: groups) == .corruptFrame, "\(format) \(groups)")
      }
      let other = try RowCodec(hidden: Self.hidden + 1, seed: 7, pool: BufferPool())
      #expect(Self.damage(frame, other) == .corruptFrame)
    }
  }

  /// Every field set to absurd numbers and sealed again, as a peer would that lies rather than errs.
  @Test func absurdNumbersUnderAValidChecksumAreRefusedWithoutAllocating() throws {
    for (format, rounding) in Self.variety {
      let (codec, frame) = try Self.codecAndFrame(format, rounding)
      let (allocations, peak) = (codec.pool.allocations, codec.pool.peakBytes)
      for (offset, width) in [(0, 4), (4, 1), (5, 1), (6, 2), (8, 4), (12, 4), (16, 8), (24, 8), (32, 8), (40, 8)]
        + Self.groups.indices.map({ (48 + 4 * $0, 4) })
      {
        for value in [UInt64(0), 1, 3, 200, 1 << 31, 1 << 32 - 1, 1 << 40, 1 << 62, 1 << 63, .max] {
          var changed = frame
          for byte in 0..<width { changed[offset + byte] = UInt8(truncatingIfNeeded: value >> (8 * UInt64(byte))) }
          guard changed != frame else { continue }
          resealHeader(&changed, groups: Self.groups.count, codec)
          #expect(Self.damage(changed, codec) != nil, "\(format): \(value) at \(offset)")
        }
      }
      #expect(codec.pool.allocations <= allocations + 1)
      #expect(codec.pool.peakBytes < peak + 1 << 17)
    }
  }

  /// A body of any other size, also one that ends within the key or the fingerprint that it starts with: the frame itself
  /// agrees with it, so what is read must stay within it (the address sanitizer looks), and the error names the size.
  @Test func aBodyCutShortUnderAValidChecksumIsRefused() throws {
    let learned = try LabelledRows(60, hidden: Self.hidden, seed: 33).learned(labelled: false)
    let x = Self.rows(Self.groups, hidden: Self.hidden)
    for (format, rounding) in Self.variety {
      let codec = try RowCodec(hidden: Self.hidden, seed: 7, pool: BufferPool())
      let memories: [RowMemory?] = format.remembers ? [nil, learned] : [nil]
      for memory in memories {
        let frame = try encodeFrame(
          x, hidden: Self.hidden, groups: Self.groups, as: format, rounding: rounding, memory: memory, codec: codec)
        let start = FrameHeader.bytes(groups: Self.groups.count)
        let keys = (rounding.isUnbiased ? 8 : 0) + (memory == nil ? 0 : 8)
        for bytes in 0..<frame.count - start {
          var changed = Array(frame[..<(start + bytes)])
          reseal(&changed, groups: Self.groups.count, codec)
          let error = #expect(throws: CrosspointError.self, "\(format) cut at \(bytes)") {
            try decodeFrame(changed, hidden: Self.hidden, groups: Self.groups, memory: memory, codec: codec)
          }
          #expect(error?.code == .corruptFrame, "\(format) cut at \(bytes)")
          if bytes < keys {
            #expect(error?.argument == "body bytes" && error?.message.hasPrefix("\(bytes); ") == true, "\(error!)")
          }
        }
      }
    }
  }

  /// Bodies of noise whose checksums are right: decoders of codes take anything, those of entropy
  /// codes and of bitmaps say no.
  @Test func noiseUnderValidChecksumsNeverCrashes() throws {
    var generator = SplitMix64(seed: 31)
    for (format, rounding) in Self.variety {
      let (codec, frame) = try Self.codecAndFrame(format, rounding)
      let start = FrameHeader.bytes(groups: Self.groups.count)
      for round in 0..<100 {
        var changed = frame
        let first = round.isMultiple(of: 2) ? start : min(start + 32, frame.count)
        for index in first..<frame.count where round < 50 || generator.next() % 8 == 0 {
          changed[index] = UInt8(truncatingIfNeeded: generator.next())
        }
        reseal(&changed, groups: Self.groups.count, codec)
        let result = Result { try decodeFrame(changed, hidden: Self.hidden, groups: Self.groups, codec: codec) }
        if case .failure(let error) = result {
          #expect((error as? CrosspointError)?.code == .corruptFrame)
          #expect(!format.hasFixedRows || format.weighsRows)
        }
      }
    }
  }

  @Test func randomBytesAreRefused() throws {
    var generator = SplitMix64(seed: 32)
    let codec = try RowCodec(hidden: Self.hidden, seed: 7, pool: BufferPool())
    for round in 0..<500 {
      var bytes = (0..<Int(generator.next() % 300)).map { _ in UInt8(truncatingIfNeeded: generator.next()) }
      if round > 100, bytes.count > 4 { bytes.replaceSubrange(0..<4, with: [0x43, 0x58, 0x50, 0x46]) }
      if round > 200, bytes.count > 5 { bytes[4] = FrameHeader.version }
      #expect(Self.damage(bytes, codec) != nil)
    }
  }

  @Test func framesWithoutRowsOrGroupsAreOrdinary() throws {
    for format in WireFormat.all {
      for groups in [[], [0], [0, 0, 0]] {
        let frame = try encodeFrame([], hidden: 5, groups: groups, as: format)
        #expect(frame.count == FrameHeader.bytes(groups: groups.count))
        let rows = try decodeFrame(frame, hidden: 5, groups: groups)
        #expect(rows.isEmpty)
      }
    }
  }

  @Test func anUndersizedBufferIsRefused() throws {
    let codec = try RowCodec(hidden: 4, seed: 7, pool: BufferPool())
    let x: [Float] = [1, 2, 3, 4]
    var frame = [UInt8](repeating: 0, count: codec.maximumFrameBytes(.fp32, rows: 1, groups: 1) - 1)
    #expect(throws: CrosspointError.self) {
      try x.withUnsafeBufferPointer { x in
        try frame.withUnsafeMutableBytes {
          try codec.encode([RowSource(base: x.baseAddress!, rows: 1)], as: .fp32, into: $0)
        }
      }
    }
    #expect(throws: CrosspointError.self) { try RowCodec(hidden: 0, seed: 1, pool: BufferPool()) }
  }

  /// Header and body lie apart: what the one has too much is of no use to the other.
  @Test func aLargerHeaderIsNoSpaceForTheBody() throws {
    let codec = try RowCodec(hidden: 4, seed: 7, pool: BufferPool())
    let x: [Float] = [1, 2, 3, 4]
    let (start, most) = (FrameHeader.bytes(groups: 1), codec.maximumBodyBytes(.fp32, rows: 1, groups: 1))
    // One buffer, so that what is written beyond the body is still memory of ours.
    var memory = [UInt8](repeating: 0, count: start + 64 + most)
    func encode(header: Int, body: Int) throws -> Int {
      try x.withUnsafeBufferPointer { x in
        try memory.withUnsafeMutableBytes { memory in
          try codec.encode(
            [RowSource(base: x.baseAddress!, rows: 1)], as: .fp32,
            header: UnsafeMutableRawBufferPointer(rebasing: memory[..<header]),
            body: UnsafeMutableRawBufferPointer(rebasing: memory[(start + 64)..<(start + 64 + body)]))
        }
      }
    }
    #expect(try encode(header: start + 64, body: most) == 16)
    for short in [most - 1, 1, 0] {
      let error = #expect(throws: CrosspointError.self) { try encode(header: start + 64, body: short) }
      #expect(error?.code == .invalidArgument && error?.argument == "frame")
    }
    #expect(throws: CrosspointError.self) { try encode(header: start - 1, body: most) }
  }

  @Test func framesRepeatBitForBit() throws {
    for format in WireFormat.all {
      let (_, first) = try Self.codecAndFrame(format)
      let (_, second) = try Self.codecAndFrame(format)
      #expect(first == second)
    }
  }
}
